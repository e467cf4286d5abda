"""What erasures cost, one by one and in batches, in a process and on Ray. Run by ``python -m tests.bench.erasure``."""
