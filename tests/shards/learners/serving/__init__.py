"""Tests of the parts of constituents that serve elsewhere."""
