"""Bodies of requests: how they come in, what they take, and what no model takes."""
