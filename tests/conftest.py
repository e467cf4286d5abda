"""Settings of all tests."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, settings

from tests.volume import SISA_VOLUME

if TYPE_CHECKING:
    from storage.stores.memory import MemoryStore

# Wall time decides nothing: a slow machine must not turn a true property into a failure.
settings.register_profile("sisa", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("sisa")

# A shell that starts the tests in the background has interrupts ignored, and those that interrupt would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Ray has its workers stand back behind all others: beside callers who never pause they would hardly come to work.
os.environ.setdefault("RAY_worker_niceness", "0")
# How a worker ended is known once its node has reported it. By default the caller waits a second for that, and then
# takes the worker for one that was lost with its node.
os.environ.setdefault("RAY_timeout_ms_task_wait_for_death_info", "20000")
# By default Ray starts a process for each processor as soon as somebody joins; most tests use one, or none.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")


_MEMORY: Final = Path("/dev/shm")  # noqa: S108  each run makes a folder of its own there
_ENOUGH_BYTES: Final = 8 << 30

# Stores wait for the disk at every write, and nothing in a test outlives the machine: so temporary folders are in
# memory where there is enough of it. What a power cut leaves is tested on a disk that forgets (``forgetful_disk``).
if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ENOUGH_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests hang for longer where they start other processes again and again: only what hangs may be ended."""
    for item in items:
        if any(item.get_closest_marker(name) for name in ("ray", "multinode")):
            item.add_marker(pytest.mark.timeout(1800))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say after a failure which spread of the cases this was, and with ``--durations`` which folders took longest."""
    if terminalreporter.stats.keys() & {"failed", "error"}:
        terminalreporter.write_line(f"with SISA_VOLUME={SISA_VOLUME} the same cases are run again")
    seconds: defaultdict[str, float] = defaultdict(float)
    for report in (each for reports in terminalreporter.stats.values() for each in reports):
        if isinstance(report, pytest.TestReport):
            seconds[report.nodeid.partition("::")[0].rpartition("/")[0]] += report.duration
    for folder in sorted(seconds, key=seconds.__getitem__, reverse=True)[: config.getoption("durations") or 0]:
        terminalreporter.write_line(f"{seconds[folder]:8.1f}s {folder}")


@pytest.fixture(scope="session")
def joined_ray() -> Iterator[None]:
    """One local Ray for all tests that use it: federations find this process in it and leave it running."""
    from cluster.config.specification import ClusterSettings
    from tests.doubles.workers.joined import joined

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))  # for workers of commands that join it
        with joined(ClusterSettings()):
            yield


@pytest.fixture(scope="session")
def aws_environment() -> Iterator[None]:
    """Credentials of the tests' servers where boto3 looks for them, and none of the user's own."""
    from botocore.loaders import JSONFileLoader

    from tests.doubles.stores.s3_servers import CREDENTIALS

    read_description = cache(JSONFileLoader().load_file)  # a megabyte, which each new session would parse again
    settings_of_boto3 = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION"):
            patch.delenv(name, raising=False)
        for name, value in {**CREDENTIALS, **settings_of_boto3, "AWS_EC2_METADATA_DISABLED": "true"}.items():
            patch.setenv(name, value)
        patch.setattr(JSONFileLoader, "load_file", lambda _, file_path: read_description(file_path))
        yield


@pytest.fixture(scope="session")
def seaweedfs_endpoint(aws_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 server with the empty buckets ``plain`` and ``versioned``; one for all tests."""
    from tests.doubles.stores.s3_servers import make_buckets, seaweedfs

    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as endpoint:
        make_buckets(endpoint)
        yield endpoint


@pytest.fixture(scope="session")
def moto_endpoint(aws_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A second S3 server, in memory, with the same buckets."""
    from tests.doubles.stores.s3_servers import make_buckets, moto

    with moto(tmp_path_factory.mktemp("moto") / "home") as endpoint:
        make_buckets(endpoint)
        yield endpoint


@pytest.fixture
def memory() -> Iterator[MemoryStore]:
    """An empty store in memory."""
    from storage.stores.memory import MemoryStore

    store = MemoryStore(secrets.token_hex(8))
    yield store
    store.forget()
