"""Backups: consistent, interrupted anywhere, and proved by their bytes alone."""
