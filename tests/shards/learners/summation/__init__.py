"""Learners that add up."""
