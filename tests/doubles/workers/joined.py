"""A Ray cluster that a test process is part of, and of which it prints nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cluster.config.specification import ClusterSettings
from cluster.runtime.session import join_ray, leave_ray


@contextmanager
def joined(settings: ClusterSettings) -> Iterator[None]:
    """Be part of the cluster while the block runs.

    A thread of Ray's prints to stdout, a moment later, that a worker died or a node was lost. Commands that tests run
    in this process meanwhile have one JSON object as their output, and nothing else.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ray._private.worker.print_to_stdstream", lambda *_, **__: None)
        join_ray(settings)
        yield
        leave_ray()
