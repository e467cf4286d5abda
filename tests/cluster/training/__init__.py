"""Workers and ingest, without Ray."""
