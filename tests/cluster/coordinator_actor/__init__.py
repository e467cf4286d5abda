"""The lasting coordinator, mostly without Ray."""
