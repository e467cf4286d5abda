"""The keyed forest."""
