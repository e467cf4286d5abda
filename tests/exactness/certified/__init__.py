"""Histories of learners whose guarantee is certified."""
