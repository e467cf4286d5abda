"""Many shards, requests and workers: what grows with them. Run by ``python -m tests.bench.scale``."""
