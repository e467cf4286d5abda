"""Local and in-memory stores, and the probe."""
