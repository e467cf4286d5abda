"""Tests of the modules of storage, and of what only one kind of store promises."""
