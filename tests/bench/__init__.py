"""Benchmarks: ratios measured side by side in one run, never absolute times as claims. Run by ``make bench``."""
