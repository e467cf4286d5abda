"""A lasting Ray cluster: after an erasure nothing of the person, and at no time the partition key, is in what Ray
keeps.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from cluster.runtime.head import is_reachable
from tests.doubles.stores.s3_servers import free_ports
from tests.doubles.user_folder import UserFolder
from tests.multinode.patience import until
from tests.ray.commands import ROOT, command
from tests.ray.several_commands import several_commands
from tests.residue.markers import Markers, all_traces, draw_markers, files_under, marker_of_bytes, traces
from tests.residue.people import fill_with_remembering
from tests.residue.ray_places import memory_of, raylet_of, shared_memory_files
from tests.sites.near.site_folders import SiteFolders

pytestmark = pytest.mark.ray

KEY: Final = secrets.token_hex(32)

SITE_KEY: Final = secrets.token_hex(16)
"""Key of a site on labelled nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a cluster keeps at its end, by place."""

    markers: Markers
    places: Mapping[str, Mapping[str, bytes]]


@contextmanager
def _head(folder: Path) -> Iterator[str]:
    """Run a Ray head as the runbook says, with its metadata on a disk; give its address."""
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    settings = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(folder / "gcs")}
    words = (
        *("start", "--head", "--block", "--port", str(port), "--node-ip-address", "127.0.0.1"),
        *("--include-dashboard=false", "--disable-usage-stats", "--temp-dir", str(folder / "ray"), "--num-cpus", "2"),
        *("--labels", "site=north"),
    )
    with subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", *words],
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as head:
        try:
            until(lambda: is_reachable(address), "the head")
            yield address
        finally:
            head.send_signal(signal.SIGTERM)
            head.wait()


def _federation_of_a_site(folder: Path, address: str) -> Path:
    """Write a federation whose only site is on the head's node, by its label, and has a key of its own."""
    (port,) = free_ports(1)
    site_folders = SiteFolders(folder, ("north",)).fill(
        settings=f'[cluster]\naddress = "{address}"\nworkers = 1\n[serve]\nport = {port}',
        each='cluster.labels = { site = "north" }',
    )
    key = site_folders.site("north").specification.partition.key
    assert key is not None
    site_folders.config.write_text(
        site_folders.config.read_text(encoding="utf-8").replace(key, SITE_KEY), encoding="utf-8"
    )
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """A federation with a key of its own, trained by a command, whose coordinator erases somebody by name and by id;
    and one of a labelled site, which its coordinator trains, and which is served.
    """
    markers = draw_markers()
    names = ("--subject", markers["subject"].value, "--subject", markers["request"].value)
    with (
        tempfile.TemporaryDirectory(prefix="gcs") as short,  # sockets have no long names
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("PYTHONPATH", str(ROOT))
        folder = Path(short)
        with _head(folder) as address:
            home = fill_with_remembering(
                UserFolder(tmp_path_factory.mktemp("home")),
                markers,
                cluster__address=address,
                cluster__workers=1,
                partition__key=KEY,
            )
            with several_commands(home.folder, one_ray=False) as there:
                for line in ("train", "launch"):
                    assert (said := there.run(line)).code == 0, said
            ended = command("erase", *names, "--wait", folder=home.folder)
            assert ended.returncode == 0, (ended.stdout, ended.stderr)
            site = _federation_of_a_site(tmp_path_factory.mktemp("sites"), address)
            with several_commands(site, one_ray=False) as there:
                assert (said := there.run("stop", "--config", str(home.config))).code == 0, said
                for line in ("launch", "train", "serve", "status", "serve --stop", "stop"):
                    assert (said := there.run(*line.split())).code == 0, said
            memory = memory_of(raylet_of(folder))
            yield Kept(
                markers=markers,
                places={
                    "folder": files_under(folder / "ray"),
                    "metadata": files_under(folder / "gcs"),
                    "shared memory": memory | shared_memory_files(),
                },
            )


@pytest.mark.parametrize("place", ["folder", "metadata", "shared memory"])
def test_nobody_is_in(kept: Kept, place: str) -> None:
    """No value of the person is there, though names were typed on a command line; nor is the key."""
    assert kept.places[place]
    assert all_traces(kept.markers, kept.places[place]) == {}
    for key in (KEY, SITE_KEY):
        assert traces(marker_of_bytes(key.encode(), bytes.fromhex(key)), kept.places[place]) == []


def test_what_ray_keeps_of_a_command_is_found(kept: Kept) -> None:
    """The search finds what is there: the command without its words, and the specifications of what was started."""
    metadata = b"".join(kept.places["metadata"].values())
    assert b"erase @memory:" in metadata
    assert b"CoordinatorShell" in metadata
    assert b"net_that_remembers:Remembering" in metadata
    for started in (b"SiteShell", b"SitesShell", b"north.parquet"):
        assert started in metadata
