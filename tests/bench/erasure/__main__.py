"""``python -m tests.bench.erasure``: see ``batches``."""

from tests.bench.erasure.batches import main

if __name__ == "__main__":
    main()
