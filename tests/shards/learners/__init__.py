"""Learners and their checkpoints."""
