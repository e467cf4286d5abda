"""Specifications read from files."""
