"""Real kills: commands that die by SIGKILL, or sleep by SIGSTOP, at named steps; and what the next command finds."""
