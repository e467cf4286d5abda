"""Commands of the first minutes: what they find, say and show."""
