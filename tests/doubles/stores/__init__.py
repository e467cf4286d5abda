"""Stores and servers that stand in for others, with faults by plan."""
