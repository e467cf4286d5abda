"""The figures of the README and the pages that they come from."""
