"""Letters to people who asked."""
