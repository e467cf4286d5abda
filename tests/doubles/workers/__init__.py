"""Learners, pools and workers without Ray."""
