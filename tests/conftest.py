"""Settings of all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Wall time decides nothing: a slow machine must not turn a true property into a failure.
settings.register_profile("sisa", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("sisa")
