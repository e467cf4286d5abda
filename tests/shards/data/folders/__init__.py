"""Folders that are more than their data files."""
