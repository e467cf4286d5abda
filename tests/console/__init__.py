"""Tests of the console: pages over a federation in this process, and, in ``browser``, the same in a real browser."""
