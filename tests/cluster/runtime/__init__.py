"""Nodes, labels, tasks, user code."""
