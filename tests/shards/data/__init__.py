"""Tests of reading files into arrays."""
