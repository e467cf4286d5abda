"""One suite of promises, kept by every object store."""
