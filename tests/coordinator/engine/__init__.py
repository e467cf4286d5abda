"""Tests of coordinator/engine."""
