"""Compares unlearned models with models that never saw the erased points, byte for byte."""
