"""Manifest, journal and what they are made of."""
