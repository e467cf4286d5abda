"""Tests of the laboratory's command and of its plots."""
