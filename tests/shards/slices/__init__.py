"""From arrays to slice files."""
