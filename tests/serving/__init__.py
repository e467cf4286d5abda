"""Tests of serving: the API without Ray, and a little of it on Ray Serve."""
