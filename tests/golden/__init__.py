"""Stored formats, byte for byte. Regenerate on purpose with `python -m tests.golden.regenerate`."""
