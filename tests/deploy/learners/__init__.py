"""Learners other than torch, as their users see them."""
