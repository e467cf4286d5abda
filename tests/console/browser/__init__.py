"""Tests of the console in a real browser: the distribution's Chromium, without a window."""
