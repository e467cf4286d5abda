"""Names on the command line: spellings, several people, those who come back."""
