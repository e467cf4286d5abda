"""Test doubles that keep the contract of what they replace, with planned faults."""
