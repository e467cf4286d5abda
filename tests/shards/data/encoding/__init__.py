"""Encoders applied to columns."""
