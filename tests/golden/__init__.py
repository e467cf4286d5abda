"""Stored formats, byte for byte. Regenerate on purpose: `python -m tests.golden.regenerate`, `…regenerate_parts`."""
