"""What type checkers know of the product: read by mypy and pyright in ``make lint``, never run."""
