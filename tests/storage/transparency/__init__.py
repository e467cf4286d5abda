"""Log, signatures, witness."""
