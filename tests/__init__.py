"""Tests: one folder per room, and the kinds named in each folder."""
