"""Every engine trains the same constituents, to the bit, or is not used."""
