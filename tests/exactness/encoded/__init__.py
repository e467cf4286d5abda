"""The law over encoded columns."""
