"""Real Ray: few tests, slow ones; workers and commands are killed in the middle of their work."""
