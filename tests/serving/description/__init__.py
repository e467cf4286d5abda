"""The description of the API: whether it explains itself, and whether answers are as it says."""
