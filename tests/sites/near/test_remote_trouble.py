"""Sites that are away, slow or cut off, or that send invalid answers, are absent with a reason and have no part."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.client import Client
from cluster.serving import access_log
from cluster.sites.federation import connect_sites
from shards.data.messages import stream_of
from storage.errors import Corrupt, SisaError, Unavailable
from tests.doubles.user_folder import small_points
from tests.sites.near.asked import CLASSES, NAMES, PERSON, PREDICTIONS, absent, features, joined, remote
from tests.sites.near.served import Served
from tests.volume import examples


def test_a_site_that_is_away(world: Served) -> None:
    """If no server listens, the site is absent at once, without another attempt, and the reason is given."""
    with joined(world, north="http://127.0.0.1:9") as federation:
        assert absent(federation, world) == "the server does not answer: ConnectionRefusedError"
        with pytest.raises(Unavailable, match="the server does not answer"):
            federation.erase("north", subjects=[PERSON])
        assert federation.status().waits_for == ("north",)


def test_a_site_that_speaks_another_protocol(world: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that it sends is used: it is absent, with both versions, and takes part again once they are equal. A
    different release alone does not matter.
    """
    with joined(world) as federation, monkeypatch.context() as patch:
        patch.setattr(access_log, "own_release", lambda: "9.9.9+api1.sites1")
        assert len(federation.predict(world.site_folders.write("asked", small_points(people=5))).sites) == 3
        patch.setattr(access_log, "own_release", lambda: "9.9.9+api1.sites2")
        with pytest.raises(Unavailable, match="no site can be asked") as caught:
            federation.predict(world.site_folders.folder / "asked.parquet")
        reported = (
            "north: the site is away: the server speaks version 2 of the protocol between sites, this client version 1"
        )
        assert f"{reported} [server=9.9.9 client=" in str(caught.value)
        assert len(federation.status().waits_for) == 3
        patch.undo()
        assert len(federation.predict(world.site_folders.folder / "asked.parquet").sites) == 3


def test_a_slow_site_is_not_waited_for(world: Served) -> None:
    """A site that does not answer in time is absent, and the quorum answers; afterwards it has a part again."""
    with joined(world):
        world.specify(settings="[sites]\nquorum = 2\ntimeout_seconds = 1.0\ngrace_seconds = 0.1\n")
        with connect_sites(world.site_folders.config) as federation:
            link = federation.link("south")
            link.answer(features(), NAMES)
            world.sites["north"].boundary.is_open.clear()
            assert "in time" in absent(federation, world)
            world.sites["north"].boundary.is_open.set()
            while len(federation.predict(world.site_folders.write("asked", small_points(people=5))).sites) < 3:
                pass


def test_a_network_that_is_cut(world: Served) -> None:
    """An incomplete answer does not count."""
    with joined(world) as federation:
        world.sites["north"].boundary.cut.add(PREDICTIONS)
        assert absent(federation, world) == "the server does not answer: IncompleteRead"
        world.sites["north"].boundary.cut.clear()
        assert len(federation.predict(world.site_folders.folder / "asked.parquet").sites) == 3


def test_a_server_that_ends_connections_is_asked_again(world: Served) -> None:
    """A connection that the server has closed since the last answer does not make the site absent: servers do that."""
    link = remote(world)
    link.standing()
    (connection,) = (client._connection for client in link._idle)
    assert connection is not None
    connection.sock.shutdown(2)
    assert link.standing().shards == 2
    link.close()


def answer_of(points: int = 20, **changes: object) -> bytes:
    """Return an answer for so many data points, with parts of it changed (None: left out)."""
    facts: dict[str, object] = {"generation": 1, "constituents": 2, "shards": 2, "guarantee": None}
    columns: dict[str, object] = {"prediction": pa.array(["a"] * points)}
    for name, share in zip(CLASSES, (0.5, 0.25, 0.25), strict=True):
        columns[f"probability_{name}"] = pa.array([share] * points, pa.float32())
    for name, value in changes.items():
        (facts if name in facts else columns)[name] = value
    table = pa.table({name: values for name, values in columns.items() if values is not None})
    reported: dict[str, Any] = {name: value for name, value in facts.items() if value is not None}
    return stream_of(table, reported)


def scores(*values: float | None) -> pa.Array:
    """Return a column of probabilities: these, and 0.5 for the rest of twenty."""
    return pa.array([*values, *([0.5] * (20 - len(values)))], pa.float32())


NONSENSE = {
    "another status": (500, b"secret-person-001"),
    "an error of ours": (500, b'{"error": {"kind": "internal", "message": "a bug", "remedy": "report it"}}'),
    "a redirection": (302, b""),
    "not the API": (200, b"<html>secret-person-001</html>"),
    "nothing": (200, b""),
    "deep": (500, b"[" * 100_000),
    "half a stream": (200, answer_of()[:-200]),
    "too few points": (200, answer_of(19)),
    "too many points": (200, answer_of(21)),
    "a class too few": (200, answer_of(probability_c=None)),
    "a class too many": (200, answer_of(probability_d=scores())),
    "other classes": (200, answer_of(probability_c=None, probability_z=pa.array([0.25] * 20, pa.float32()))),
    "an id": (200, answer_of(id=pa.array(range(20)))),
    "doubles": (200, answer_of(probability_a=pa.array([0.5] * 20))),
    "texts": (200, answer_of(probability_a=pa.array(["0.5"] * 20))),
    "null": (200, answer_of(probability_a=scores(None))),
    "NaN": (200, answer_of(probability_a=scores(float("nan")))),
    "infinite": (200, answer_of(probability_a=scores(float("inf")))),
    "negative": (200, answer_of(probability_a=scores(-0.5))),
    "above one": (200, answer_of(probability_a=scores(1.5))),
    "not one in all": (200, answer_of(probability_a=scores(0.75))),
    "no generation": (200, answer_of(generation=0)),
    "no constituent": (200, answer_of(constituents=0)),
    "more than there are": (200, answer_of(constituents=3)),
    "no facts": (200, answer_of(generation=None)),
    "strange facts": (200, answer_of(generation="one")),
    "a sentence": (200, answer_of(guarantee='"exact, but for secret-person-001"')),
    "an endless guarantee": (200, answer_of(guarantee='"' + "secret" * 5000 + '"')),
    "endless facts": (200, answer_of(shards="9" * 5000)),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_no_part_of_an_answer(world: Served, name: str) -> None:
    """A site that sends an invalid answer is absent, with a reason that quotes nothing; the others answer."""
    with joined(world) as federation:
        world.sites["north"].boundary.forged[PREDICTIONS] = NONSENSE[name]
        reason = absent(federation, world)
        assert reason
        assert "secret" not in reason


STANDINGS = ["", "null", "[]", "{}", '{"identity": 1}', "[" * 100_000, '"secret-person-001"']


@pytest.mark.parametrize("body", STANDINGS, ids=range(len(STANDINGS)))
def test_a_standing_that_is_none(world: Served, body: str) -> None:
    """A site without a valid standing has no part, even if its answers are valid."""
    with joined(world) as federation:
        world.sites["north"].boundary.forged["/v1/standing"] = (200, body.encode())
        assert "not what the API's version 1 says" in absent(federation, world)


LIES: dict[str, object] = {
    "position": -1,
    "generation": -1,
    "floor": -1,
    "requests": -1,
    "shards": 0,
    "width": 10**12,
    "features": ["x00", "x01"],
    "checkpoints": [[0, "0" * 64], [0, "1" * 64]],
}


@pytest.mark.parametrize("name", LIES)
def test_a_standing_that_cannot_be(world: Served, name: str) -> None:
    """A site with an impossible standing has no part, even if its answers are valid."""
    with joined(world) as federation:
        standing = federation.link("north").standing()
        reported = json.dumps({**asdict(standing), name: LIES[name]}).encode()
        world.sites["north"].boundary.forged["/v1/standing"] = (200, reported)
        assert "an impossible standing" in absent(federation, world)


def test_a_status_that_is_none_hides_no_other(world: Served) -> None:
    """If one site fails, the status has the reason, and the other sites' own status."""
    with joined(world) as federation:
        world.sites["north"].boundary.forged["/v1/status"] = (200, b"{}")
        status = federation.status()
        assert status.waits_for == ("north",)
        assert "not what the API's version 1 says" in status.sites[0].reason
        assert all(each.status is not None for each in status.sites[1:])


@pytest.mark.volume
@settings(max_examples=examples(60, 25), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from([PREDICTIONS, "/v1/standing"]),
    status=st.sampled_from([200, 200, 204, 401, 403, 404, 409, 429, 500, 503]),
    body=st.binary(max_size=200) | st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=4)),
)
def test_whatever_a_site_answers_is_an_answer_or_an_error_of_ours(
    world: Served, path: str, status: int, body: bytes | tuple[int, bytes]
) -> None:
    """Any bytes under any status, edited answers among them: an answer that is one, or an error of ours."""
    if isinstance(body, tuple):
        payload = answer_of(5)
        place = body[0] % len(payload)
        body = payload[:place] + body[1] + payload[place + len(body[1]) :]
    world.sites["north"].boundary.forged = {path: (status, body)}
    link = remote(world)
    with suppress(SisaError):  # any other error is a failure
        found = link.answer(features(), NAMES)
        assert np.isfinite(found.scores_NS).all()
        assert found.scores_NS.shape == (5, 3)
    link.close()


def test_a_body_without_end_is_left(world: Served) -> None:
    """An answer that is larger than any that makes sense is given up."""
    north = world.sites["north"]
    north.boundary.forged["/v1/standing"] = (200, b" " * 100_000)
    client = Client(f"http://127.0.0.1:{north.port}", "t", most_bytes=50_000)
    with client, pytest.raises(Corrupt, match="not what the API's version 1 says"):
        client.standing()
