"""Objects under keys of their own."""
