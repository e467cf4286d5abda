"""Settings of all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Wall time decides nothing: a slow machine must not turn a true property into a failure.
settings.register_profile("sisa", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("sisa")


@pytest.fixture(scope="session")
def joined_ray() -> Iterator[None]:
    """One local Ray for all tests that use it: federations find this process in it and leave it running."""
    from cluster.session import join_ray, leave_ray
    from cluster.specification import ClusterSettings

    join_ray(ClusterSettings())
    yield
    leave_ray()
