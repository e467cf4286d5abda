"""What performs them."""
