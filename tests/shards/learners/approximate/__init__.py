"""Learners of the laboratory, on small data."""
