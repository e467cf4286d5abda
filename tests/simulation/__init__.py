"""The whole coordinator on a virtual clock: seeded schedules, deaths by plan, and an auditor who sees every change."""
