"""Tests of writing arrays to slice files."""
