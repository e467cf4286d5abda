"""The command on data files as they are."""
