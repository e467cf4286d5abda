"""The command, from outside."""
