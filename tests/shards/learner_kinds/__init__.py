"""The table of learners."""
