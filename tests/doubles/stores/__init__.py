"""Doubles of stores and servers, with planned faults."""
