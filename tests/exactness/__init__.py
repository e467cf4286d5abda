"""Unlearned models against models that never saw the erased points, byte for byte."""
