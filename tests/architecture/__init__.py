"""Tests of the architecture: import direction, heavy libraries' doors, sizes, documented examples."""
