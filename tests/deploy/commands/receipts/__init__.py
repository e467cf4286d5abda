"""Receipts, keys and checks, as commands."""
