"""What an answer costs, beside an empty application and a bare one. Run by ``python -m tests.bench.serving``."""
