"""A bucket that keeps versions, and the disk of the server behind it: nothing of an erased person is left in either.

SeaweedFS keeps the bytes of what is deleted until its volumes are vacuumed. So its disk is looked at three times:
before the erasure, after it, and after a vacuum.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import cluster.training.workers
import cluster.writer.writer
from storage.encryption.store import SealedStore
from storage.s3.client import S3Store
from tests.doubles.stores.s3_servers import make_buckets, plain_client, seaweedfs
from tests.doubles.stores.weed_shell import weed_shell
from tests.doubles.user_folder import UserFolder
from tests.doubles.workers.local_workers import LocalWorkers
from tests.residue.markers import EVERYWHERE, IN_NAMES, STORED, Markers, draw_markers, files_under, traces
from tests.residue.observations import opened
from tests.residue.people import fill_with_remembering

pytestmark = pytest.mark.s3

BUCKET = "versioned"
PREFIX = "federation"
_VACUUMS = 30
_END_BYTES = 32

STORED_HERE = tuple(name for name in STORED if name != "measurements")


@dataclass(frozen=True, slots=True)
class Server:
    """A SeaweedFS and the folder that holds all it has."""

    endpoint: str
    folder: Path

    def disk(self) -> dict[str, bytes]:
        """Return its files: volumes, indexes, the filer's data base, logs."""
        return files_under(self.folder)

    def vacuumed(self, gone: Iterable[bytes]) -> dict[str, bytes]:
        """Return the disk after the server has rewritten its volumes without deleted objects.

        The server deletes asynchronously, so this repeats until the bytes in ``gone`` are gone, a limited number of
        times.
        """
        disk, wanted = self.disk(), tuple(gone)
        for _ in range(_VACUUMS):
            weed_shell(self.folder, "lock", "volume.vacuum -garbageThreshold=0.0001", "unlock")
            disk = self.disk()
            if not any(piece in payload for payload in disk.values() for piece in wanted):
                break
        return disk

    def versions(self, prefix: str) -> list[tuple[str, str]]:
        """Return name and id of every version and delete marker."""
        client = plain_client(self.endpoint)
        answer = client.list_object_versions(Bucket=BUCKET, Prefix=prefix)
        client.close()
        found = (*answer.get("Versions", ()), *answer.get("DeleteMarkers", ()))
        return [(each["Key"], each["VersionId"]) for each in found]

    def plant(self, markers: Markers) -> None:
        """Put every value unencrypted, one also as a key, and remove every version of it."""
        client = plain_client(self.endpoint)
        for number, (name, marker) in enumerate(sorted(markers.items())):
            key = f"planted/{marker.value if name in IN_NAMES else number}"
            padding = secrets.token_bytes(3_000)  # or the server would compress it
            client.put_object(Bucket=BUCKET, Key=key, Body=padding + marker.forms[0] + padding)
        for key, version in self.versions("planted/"):
            client.delete_object(Bucket=BUCKET, Key=key, VersionId=version)
        client.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Observation:
    """An erasure in a bucket with versions, and what the server's disk held at three moments."""

    markers: Markers
    opened_before: Mapping[str, bytes]
    """Objects, decrypted and decompressed."""
    opened_after: Mapping[str, bytes]
    stored_before: Mapping[str, bytes]
    """Objects as they were put, keys among them."""
    purged: frozenset[str]
    """Those of them that the erasure removed."""
    versions_after: frozenset[str]
    """Names of all versions and markers, under the store's prefix."""
    disk_before: Mapping[str, bytes]
    disk_after: Mapping[str, bytes]
    disk_vacuumed: Mapping[str, bytes]
    disk_with_planted: Mapping[str, bytes]
    """After another program has put the markers unencrypted, and purged them."""
    disk_without_planted: Mapping[str, bytes]
    """The same after a vacuum."""


@pytest.fixture(scope="module")
def server(aws_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of these tests' own, whose disk they may read."""
    folder = tmp_path_factory.mktemp("weed") / "server"
    with seaweedfs(folder) as endpoint:
        make_buckets(endpoint)
        yield Server(endpoint, folder)


@pytest.fixture(scope="module")
def observation(server: Server, tmp_path_factory: pytest.TempPathFactory) -> S3Observation:
    """The story, run once."""
    markers, home = draw_markers(), UserFolder(tmp_path_factory.mktemp("federation"))
    fill_with_remembering(home, markers, store=f"s3://{BUCKET}/{PREFIX}", endpoint=server.endpoint)
    store = S3Store(BUCKET, PREFIX, server.endpoint)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
        patch.setattr(cluster.training.workers, "join_ray", lambda _: False)
        patch.setattr(cluster.writer.writer, "probe_store", lambda _: None)  # up to 15 s here, and tested elsewhere
        patch.setattr(sys, "path", list(sys.path))
        assert home.json("train").code == 0
        opened_before, disk_before = opened(SealedStore(store)), server.disk()
        stored = {str(info.key): store.get(info.key).payload for info in store.list("")}
        assert home.json("erase", "--subject", markers["subject"].value).data["state"] == "complete"
    disk_after, opened_after = server.disk(), opened(SealedStore(store))
    purged = stored.keys() - {info.key for info in store.list("")}
    versions = [name.removeprefix(f"{PREFIX}/") for name, _ in server.versions(f"{PREFIX}/")]
    disk_vacuumed = server.vacuumed(stored[key][-_END_BYTES:] for key in purged if _is_random(key))
    server.plant(markers)
    disk_with_planted = server.disk()
    planted = [marker.forms[0] for name, marker in markers.items() if name not in IN_NAMES]
    return S3Observation(
        markers=markers,
        opened_before=opened_before,
        opened_after=opened_after,
        stored_before=stored,
        purged=frozenset(purged),
        versions_after=frozenset(versions),
        disk_before=disk_before,
        disk_after=disk_after,
        disk_vacuumed=disk_vacuumed,
        disk_with_planted=disk_with_planted,
        disk_without_planted=server.vacuumed(planted),
    )


@pytest.mark.parametrize("name", EVERYWHERE)
def test_a_value_is_nowhere_on_the_servers_disk(observation: S3Observation, name: str) -> None:
    """No volume, index, data base or log of the server ever holds the plain value. A value that was put unencrypted is
    found even after it is purged, until the volumes are vacuumed.
    """
    marker = observation.markers[name]
    assert traces(marker, observation.disk_before) == traces(marker, observation.disk_after) == []
    assert traces(marker, observation.disk_vacuumed) == []
    assert traces(marker, observation.disk_with_planted)
    if name not in IN_NAMES:  # a name stays in the server's own log of names: ours tell nothing
        assert traces(marker, observation.disk_without_planted) == []


@pytest.mark.parametrize("name", STORED_HERE)
def test_a_value_opens_before_and_in_no_object_after(observation: S3Observation, name: str) -> None:
    """What the store has to hold opens with its keys before the erasure; afterwards no object holds it."""
    assert traces(observation.markers[name], observation.opened_before)
    assert traces(observation.markers[name], observation.opened_after) == []


def test_no_version_of_a_purged_object_is_left(observation: S3Observation) -> None:
    """Neither versions nor delete markers are left of the objects that held the person, nor of their keys."""
    held = {key for name in STORED_HERE for key in traces(observation.markers[name], observation.opened_before)}
    assert held <= observation.purged
    assert any("/kek-" in key for key in observation.purged)
    assert not observation.purged & observation.versions_after
    assert observation.versions_after >= observation.opened_after.keys()


def test_the_disk_keeps_purged_bytes_until_a_vacuum(observation: S3Observation) -> None:
    """The bytes of purged objects and of destroyed keys are on the disk before the erasure, and after a vacuum are not;
    those of other objects still are.
    """
    ends = {key: payload[-_END_BYTES:] for key, payload in observation.stored_before.items() if _is_random(key)}
    purged = {key: end for key, end in ends.items() if key in observation.purged}
    kept = {key: end for key, end in ends.items() if key not in observation.purged}
    assert len(purged) >= 3
    assert _lying(purged, observation.disk_before) == purged.keys()
    assert _lying(purged, observation.disk_vacuumed) == set()
    assert _lying(kept, observation.disk_vacuumed) == kept.keys()


def _is_random(key: str) -> bool:
    """Whether the object is random bytes, which the server does not compress."""
    return key.startswith("shards/") or "/kek-" in key


def _lying(ends: Mapping[str, bytes], disk: Mapping[str, bytes]) -> set[str]:
    return {key for key, end in ends.items() if any(end in payload for payload in disk.values())}
