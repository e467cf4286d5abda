"""The simulated world: who acts in it, what goes wrong, who audits it."""
