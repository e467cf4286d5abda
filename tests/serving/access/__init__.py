"""Tests of tokens and roles over HTTP."""
