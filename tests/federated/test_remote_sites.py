"""One cluster per site: a federation that reaches its sites over their own HTTP APIs, and nothing else of them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

import cluster.workers
from cluster.client import Client, NotAllowed
from cluster.sites.federation import SiteFederation, connect_sites
from cluster.sites.links import NearSite
from cluster.sites.remote import NotLetIn, RemoteSite
from cluster.sites.specification import SitesSettings, read_sites
from coordinator.bundles import verify_bundle
from coordinator.ports import Notice
from shards.exchange import stream_of, table_of_stream
from storage.errors import Conflict, Corrupt, Invalid, ObjectMissing, SisaError, Unavailable
from tests.doubles.home import FEATURES, small_points
from tests.doubles.local_workers import LocalWorkers
from tests.federated.houses import SITES, Houses
from tests.federated.served import Boundary, Served, listening, served

PERSON = "north-secret-person-003"
PREDICTIONS = "/v1/predictions"
NAMES = [f"x{feature:02d}" for feature in range(FEATURES)]
CLASSES = ("a", "b", "c")


def unheard(_: Notice) -> None:
    """Hear nothing."""


def features(points: int = 5) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return features that are not scaled."""
    columns = small_points(people=-(-points // 4))
    return np.array([columns[name][:points] for name in NAMES], np.float32).T.copy()


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Three served sites that no test changes, apart from their boundaries."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(cluster.workers, "RayPool", LocalWorkers)
        patch.setattr(cluster.workers, "join_ray", lambda _: False)
        made = stack.enter_context(served(Houses(tmp_path_factory.mktemp("still")).fill()))
        yield made


@pytest.fixture
def world(still: Served) -> Iterator[Served]:
    """The same, with boundaries that let everything through, and tokens that are good."""
    for site in still.sites.values():
        site.boundary.crossed.clear()
    still.specify()
    yield still
    for name, site in still.sites.items():
        site.boundary.is_open.set()
        site.boundary.forged.clear()
        site.boundary.cut.clear()
        still.hand_over(name, site.tokens.create("federate", days=1).text)


@pytest.fixture
def alive(houses: Houses) -> Iterator[Served]:
    """Three served sites of this test's own."""
    with served(houses) as made:
        yield made


def joined(world: Served, **urls: str) -> SiteFederation:
    """Return the federation, all sites of it members; two of them answer for it."""
    world.specify()
    with connect_sites(world.houses.config) as federation:
        federation.train()
    world.specify(settings="[sites]\nquorum = 2\ntimeout_seconds = 20.0\ngrace_seconds = 20.0\n", **urls)
    return connect_sites(world.houses.config)


def remote(world: Served, site: str = "north") -> RemoteSite:
    """Return a way to a site."""
    return RemoteSite(world.link_site(site), SitesSettings(timeout_seconds=20.0))


def absent(federation: SiteFederation, world: Served, site: str = "north") -> str:
    """Ask; return why the site has no part in the answer, which the others give."""
    asked = world.houses.write("asked", small_points(people=5))
    answers = federation.predict(asked)
    assert [each.site for each in answers.sites] == [name for name in SITES if name != site]
    assert answers.absent.keys() == {site}
    assert np.isfinite(answers.table().column("probability_a")).all()
    return answers.absent[site]


@pytest.mark.parametrize("points", [0, 1, 5, 1000])
@pytest.mark.parametrize("site", SITES)
def test_answers_are_those_of_the_site_itself(world: Served, site: str, points: int) -> None:
    """Asked over HTTP a site says, bit for bit, what it says to one who stands beside its store."""
    link = remote(world, site)
    near = NearSite(world.link_site(site), unheard)
    found, expected = link.answer(features(points)), near.answer(features(points))
    assert found.scores_NC.tobytes() == expected.scores_NC.tobytes()
    assert found.scores_NC.shape == (points, 3)
    assert (found.generation, found.constituents, found.shards) == (
        expected.generation,
        expected.constituents,
        expected.shards,
    )
    assert link.standing(0) == near.standing(0)
    link.close()


def test_the_federation_answers_as_if_its_sites_were_near(world: Served) -> None:
    """Which way sites are reached changes no bit of the federation's answers."""
    asked = world.houses.write("asked", small_points(people=25))
    with joined(world) as federation:
        far = federation.predict(asked).table()
    with connect_sites(world.houses.config, link_to=NearSite) as federation:
        assert federation.predict(asked).table().equals(far)


def test_large_questions_travel_in_pieces(world: Served) -> None:
    """A site that takes few data points at once is asked several times, and the answer is one."""
    world.specify(each="serve.max_points = 7\n")
    link = remote(world)
    expected = NearSite(world.link_site("north"), unheard).answer(features(30))
    assert link.answer(features(30)).scores_NC.tobytes() == expected.scores_NC.tobytes()
    assert [each.path for each in world.sites["north"].boundary.crossed] == ["/v1/standing"] + [PREDICTIONS] * 5
    link.close()


def test_only_features_and_predictions_cross(world: Served) -> None:
    """Where only predictions leave, no id, label, other column or weight is in any request or answer."""
    with joined(world) as federation:
        for site in world.sites.values():
            site.boundary.crossed.clear()
        columns = small_points(people=5)
        columns["note"] = [f"secret-note-{number}" for number in range(20)]
        list(federation.predict(world.houses.write("asked", columns)).batches)
    for site in world.sites.values():
        crossed = site.boundary.crossed
        assert {(each.method, each.path) for each in crossed} == {("POST", PREDICTIONS), ("GET", "/v1/standing")}
        for each in crossed:
            assert b"secret" not in each.asked + each.answered
        for each in (each for each in crossed if each.path == PREDICTIONS):
            asked, answered = table_of_stream(each.asked, 100), table_of_stream(each.answered, 100)
            assert asked.column_names == NAMES
            assert set(asked.schema.types) == {pa.float32()}
            assert answered.column_names == ["prediction", *(f"probability_{name}" for name in CLASSES)]
            assert len(each.answered) < 4000


def test_only_standing_and_checkpoints_cross(houses: Houses) -> None:
    """Where weights leave, what is asked does not travel: constituents are fetched once, and answer here."""
    with served(houses, each='leaves = "weights"') as world, joined(world) as federation:
        for site in world.sites.values():
            site.boundary.crossed.clear()
        asked = world.houses.write("asked", small_points(people=5))
        carried = federation.predict(asked).table()
        assert federation.predict(asked).table().equals(carried)
        for site in world.sites.values():
            paths = [each.path.rpartition("/")[0] for each in site.boundary.crossed]
            assert set(paths) == {"/v1/checkpoints/0", "/v1/checkpoints/1", "/v1"}
            assert paths.count("/v1/checkpoints/0") == 1
            assert {each.asked for each in site.boundary.crossed} == {b""}
        with connect_sites(houses.config, link_to=NearSite) as near:
            assert near.predict(asked).table().equals(carried)


def test_a_site_decides_itself_what_leaves_it(world: Served) -> None:
    """A federation whose copy of the specification says that weights leave gets none from a site that does not."""
    with joined(world):
        world.specify(each='leaves = "weights"')
        link = remote(world)
        shard, digest = link.standing().checkpoints[0]
        with pytest.raises(Invalid, match="no weights leave this site"):
            link.checkpoint(shard, digest)
        assert world.sites["north"].boundary.crossed[-1].status == 403
        link.close()


def test_an_erasure_from_the_federation_to_the_receipt(alive: Served) -> None:
    """A person is erased at their site, which signs for it; the federation's own receipt names that one."""
    with joined(alive) as federation:
        before = {name: site.resident.state().generation for name, site in alive.sites.items()}
        status = federation.erase("north", subjects=[PERSON], request_id="er-1")
        assert (status.state, status.points) == ("complete", 4)
        after = {name: site.resident.state().generation for name, site in alive.sites.items()}
        assert [name for name in SITES if after[name] != before[name]] == ["north"]
        assert federation.request("er-1") == ("north", status)
        assert federation.erase("north", subjects=[PERSON], request_id="er-1") == status
        with pytest.raises(Conflict, match="er-1"):
            federation.erase("north", subjects=["north-secret-person-004"], request_id="er-1")
        receipt = federation.receipt("er-1")
        with cluster.connect(alive.houses.site("north").specification) as alone:
            assert verify_bundle(receipt.at_site, alone.registrar.public_keys()).is_valid
        assert verify_bundle(receipt.at_federation, federation.registrar.public_keys()).is_valid
        with pytest.raises(ObjectMissing, match="no site has this"):
            federation.receipt("er-2")
        answers = federation.predict(alive.houses.write("asked", small_points(people=5)))
        assert next(each.generation for each in answers.sites if each.site == "north") >= 2
        names = b"".join(each.asked for name in ("south", "west") for each in alive.sites[name].boundary.crossed)
        assert PERSON.encode() not in names


def test_a_held_request_waits_at_its_site(alive: Served) -> None:
    """What is told of a request is what its site says; a request that names nobody known is refused there."""
    with joined(alive) as federation:
        held = federation.erase("north", subjects=[PERSON], request_id="er-1", held="legal hold 17")
        assert (held.state, held.held) == ("waiting", "legal hold 17")
        stranger = federation.erase("south", subjects=[PERSON], request_id="er-1")
        assert (stranger.state, stranger.points) == ("refused", 0)
        assert federation.status().sites[0].status is not None


def test_a_site_withdraws_over_http(alive: Served) -> None:
    """Everybody at the site is erased there, with a receipt; the federation answers without it at once."""
    with joined(alive) as federation:
        status = federation.withdraw("west", "the hospital leaves the study")
        assert (status.membership, status.reason) == ("purged", "the hospital leaves the study")
        assert sum(shard.points for shard in alive.sites["west"].resident.state().shards) == 0
        answers = federation.predict(alive.houses.write("asked", small_points(people=5)))
        assert [each.site for each in answers.sites] == ["north", "south"]
        receipt = federation.receipt("withdrawal-of-west").at_federation
        assert verify_bundle(receipt, federation.registrar.public_keys()).is_valid
        assert federation.withdraw("west", "again").membership == "purged"


def test_an_id_that_was_used_withdraws_nobody(alive: Served) -> None:
    """A request for one person under the withdrawal's id is not taken for the withdrawal."""
    north = alive.sites["north"]
    link = remote(alive)
    link.erase(subjects=[PERSON], ids=[], request_id="withdrawal-of-north", held="", wait=True)
    with pytest.raises(Conflict, match="there are data points here"):
        link.erase_everyone("withdrawal-of-north")
    assert sum(shard.points for shard in north.resident.state().shards) == 44
    link.close()


def test_training_and_proof_are_the_sites_own(world: Served) -> None:
    """A federation takes a trained site in, and is told where it proves itself."""
    link = remote(world)
    assert link.train().generation == 1
    with pytest.raises(Unavailable, match="proves itself there.* 'sisa verify --site north' there"):
        link.verify()
    status = json.loads(world.sites["north"].boundary.crossed[-1].answered)
    world.sites["north"].boundary.forged["/v1/status"] = (200, json.dumps({**status, "generation": 0}).encode())
    with pytest.raises(Unavailable, match="not trained yet.* 'sisa train --site north' there"):
        link.train()
    link.close()


# ------------------------------------------------------------------------------------------------- who may ask


@pytest.mark.parametrize("role", ["predict", "erase", "audit"])
def test_other_roles_read_no_standing_and_no_checkpoint(world: Served, role: str) -> None:
    """Only a federation reads how a site stands and its checkpoints, and only it erases everyone."""
    north = world.sites["north"]
    token = north.tokens.create(role, days=1).text
    with Client(f"http://127.0.0.1:{north.port}", token) as client:
        for act in (client.standing, lambda: client.checkpoint(0, "0" * 64), lambda: client.erase_everyone("er-1")):
            with pytest.raises(NotAllowed, match=f"a token with the role '{role}' may not"):
                act()
    assert north.resident.state().requests == ()


@pytest.mark.parametrize("case", ["stranger", "role", "expired", "revoked", "none", "nonsense"])
def test_tokens_that_open_nothing(world: Served, case: str) -> None:
    """A site that does not let the federation in is absent; the error names site and role and never the token."""
    tokens = world.sites["north"].tokens
    makers: dict[str, Callable[[], str]] = {
        "stranger": lambda: world.sites["south"].tokens.create("federate", days=1).text,
        "role": lambda: tokens.create("audit", days=1).text,
        "expired": lambda: tokens.create("federate", days=1e-9).text,
        "revoked": lambda: revoked(world),
        "none": lambda: "",
        "nonsense": lambda: "sisa_secret_secret",
    }
    made = makers[case]()
    with joined(world) as federation:
        world.hand_over("north", made)
        assert "secret" not in absent(federation, world)
        link = remote(world)
        with pytest.raises(NotLetIn, match="does not let this federation in: .*site=north role=federate") as caught:
            link.standing()
        for secret in filter(None, (made, made[-64:])):
            assert secret not in f"{caught.value!r} {link!r} {federation.status()}"
        if case != "role":  # an auditor may see how the site is
            assert federation.status().waits_for == ("north",)
            with pytest.raises(Unavailable, match="away: north .the site does not let this federation in"):
                federation.request("er-1")
        world.hand_over("north", tokens.create("federate", days=1).text)
        until_let_in(link)  # a new token is read where the old one was refused
        link.close()


def until_let_in(link: RemoteSite) -> None:
    """Return when the site knows the token: it looks for new ones only so often."""
    while True:
        with suppress(NotLetIn):
            assert link.standing().shards == 2
            return


def revoked(world: Served) -> str:
    """Return a token that was revoked."""
    tokens = world.sites["north"].tokens
    made = tokens.create("federate", days=1)
    tokens.revoke(made.record.token_id)
    return made.text


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o606, 0o620, 0o777])
def test_a_token_that_others_can_read_is_not_used(world: Served, mode: int) -> None:
    """A token's file that others may read, or its group write, is refused before anything is sent."""
    (world.houses.folder / "north.token").chmod(mode)
    link = remote(world)
    with pytest.raises(NotLetIn, match="others may read the site's token.* 'chmod 600 north.token'"):
        link.standing()
    (world.houses.folder / "north.token").unlink()
    with pytest.raises(NotLetIn, match="token cannot be read: No such file"):
        link.standing()
    assert world.sites["north"].boundary.crossed == []


def test_a_token_file_as_it_should_be(world: Served) -> None:
    """A file for its owner alone, or for a group to read, is used; its text is nowhere in what the link shows."""
    for mode in (0o600, 0o400, 0o440):
        (world.houses.folder / "north.token").chmod(mode)
        link = remote(world)
        assert link.standing().shards == 2
        assert "sisa_" not in f"{link!r} {world.link_site('north')!r}"
        link.close()


# --------------------------------------------------------------------------------------------- what is away, or lies


def test_a_site_that_is_away(world: Served) -> None:
    """Where nobody listens the site is absent at once, without another attempt, and it is said why."""
    with joined(world, north="http://127.0.0.1:9") as federation:
        assert absent(federation, world) == "the server does not answer: ConnectionRefusedError"
        with pytest.raises(Unavailable, match="the server does not answer"):
            federation.erase("north", subjects=[PERSON])
        assert federation.status().waits_for == ("north",)


def test_a_slow_site_is_not_waited_for(world: Served) -> None:
    """A site that does not answer in time is absent, and the quorum answers; afterwards it has a part again."""
    with joined(world):
        world.specify(settings="[sites]\nquorum = 2\ntimeout_seconds = 1.0\ngrace_seconds = 0.1\n")
        with connect_sites(world.houses.config) as federation:
            link = federation.link("south")
            link.answer(features())
            world.sites["north"].boundary.is_open.clear()
            assert "in time" in absent(federation, world)
            world.sites["north"].boundary.is_open.set()
            while len(federation.predict(world.houses.write("asked", small_points(people=5))).sites) < 3:
                pass


def test_a_network_that_is_cut(world: Served) -> None:
    """An answer that ends in its middle is none."""
    with joined(world) as federation:
        world.sites["north"].boundary.cut.add(PREDICTIONS)
        assert absent(federation, world) == "the server does not answer: IncompleteRead"
        world.sites["north"].boundary.cut.clear()
        assert len(federation.predict(world.houses.folder / "asked.parquet").sites) == 3


def test_a_server_that_ends_connections_is_asked_again(world: Served) -> None:
    """A connection that the server has ended since the last answer is no absence: servers do that."""
    link = remote(world)
    link.standing()
    (connection,) = (client._connection for client in link._idle)
    assert connection is not None
    connection.sock.shutdown(2)
    assert link.standing().shards == 2
    link.close()


def answer_of(points: int = 20, **changes: object) -> bytes:
    """Return an answer for so many data points, with parts of it changed (None: left out)."""
    facts: dict[str, object] = {"generation": 1, "constituents": 2, "shards": 2}
    columns: dict[str, object] = {"prediction": pa.array(["a"] * points)}
    for name, share in zip(CLASSES, (0.5, 0.25, 0.25), strict=True):
        columns[f"probability_{name}"] = pa.array([share] * points, pa.float32())
    for name, value in changes.items():
        (facts if name in facts else columns)[name] = value
    table = pa.table({name: values for name, values in columns.items() if values is not None})
    told: dict[str, Any] = {name: value for name, value in facts.items() if value is not None}
    return stream_of(table, told)


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
    "endless facts": (200, answer_of(shards="9" * 5000)),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_no_part_of_an_answer(world: Served, name: str) -> None:
    """A site that answers what is no answer is absent with a reason that quotes nothing; the others answer."""
    with joined(world) as federation:
        world.sites["north"].boundary.forged[PREDICTIONS] = NONSENSE[name]
        reason = absent(federation, world)
        assert reason
        assert "secret" not in reason


STANDINGS = ["", "null", "[]", "{}", '{"identity": 1}', "[" * 100_000, '"secret-person-001"']


@pytest.mark.parametrize("body", STANDINGS, ids=range(len(STANDINGS)))
def test_a_standing_that_is_none(world: Served, body: str) -> None:
    """A site that does not say how it stands has no part, whatever it answers."""
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
    """What no site can be is not believed, whatever is answered beside it."""
    with joined(world) as federation:
        standing = federation.link("north").standing()
        told = json.dumps({**asdict(standing), name: LIES[name]}).encode()
        world.sites["north"].boundary.forged["/v1/standing"] = (200, told)
        assert "makes no sense" in absent(federation, world)


def test_a_status_that_is_none_hides_no_other(world: Served) -> None:
    """One site's trouble is told where it is, and the other sites' status beside it."""
    with joined(world) as federation:
        world.sites["north"].boundary.forged["/v1/status"] = (200, b"{}")
        status = federation.status()
        assert status.waits_for == ("north",)
        assert "not what the API's version 1 says" in status.sites[0].reason
        assert all(each.status is not None for each in status.sites[1:])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
        found = link.answer(features())
        assert np.isfinite(found.scores_NC).all()
        assert found.scores_NC.shape == (5, 3)
    link.close()


def test_a_body_without_end_is_left(world: Served) -> None:
    """An answer that is larger than any that makes sense is given up."""
    north = world.sites["north"]
    north.boundary.forged["/v1/standing"] = (200, b" " * 100_000)
    client = Client(f"http://127.0.0.1:{north.port}", "t", most_bytes=50_000)
    with client, pytest.raises(Corrupt, match="not what the API's version 1 says"):
        client.standing()


# ------------------------------------------------------------------------------------------------------- the way there


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("authority")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "site")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "site.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "site.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder


def test_a_site_behind_tls(world: Served, authority: Path) -> None:
    """A site's own authority is trusted where its table names it, and nowhere else."""
    certificate, key = str(authority / "site.pem"), str(authority / "site.key")
    boundary: Boundary = world.sites["north"].boundary
    with listening(boundary, ssl_certfile=certificate, ssl_keyfile=key) as port:
        url = f"https://127.0.0.1:{port}"
        world.specify(north=url, each=f'ca_file = "{certificate}"\n')
        link = remote(world)
        assert link.answer(features()).constituents == 2
        link.close()
        world.specify(north=url)
        link = remote(world)
        with pytest.raises(Invalid, match="certificate is not trusted"):
            link.standing()
        link.close()
        client = Client(url.replace("https", "http"), "t", attempts=1)
        with client, pytest.raises(Unavailable, match="does not answer"):
            client.status()


def test_ways_that_can_be_overheard_are_refused(world: Served) -> None:
    """Plain HTTP to another machine takes a word of the operator's; to this one it does not."""
    world.specify(north="http://site.example:8000")
    with pytest.raises(Invalid, match="can be overheard.*site=north"):
        connect_sites(world.houses.config)
    world.specify(north="http://site.example:8000", each="insecure = true")
    with connect_sites(world.houses.config) as federation:
        assert federation.link("north").name == "north"
    world.specify(each='ca_file = "nothing.pem"')
    with pytest.raises(Invalid, match="certificates that ca_file names cannot be read"):
        connect_sites(world.houses.config)
    world.specify(north="https://user:pw@host")
    with pytest.raises(Invalid, match="none of an HTTP API"):
        connect_sites(world.houses.config)


@pytest.mark.parametrize("line", ['ca_file = "a.pem"', "insecure = true", 'url = "http://127.0.0.1:1"'])
def test_words_about_a_way_that_is_not_there(houses: Houses, line: str) -> None:
    """What is said of a url without one, or of a url without a token, is a mistake that is told."""
    houses.specify(each=line)
    with pytest.raises(Invalid, match="url"):
        read_sites(houses.config)


def test_questions_do_not_wait_for_each_other(world: Served) -> None:
    """While a site's answer is held up, another question to it goes over a connection of its own."""
    boundary = world.sites["north"].boundary
    link = remote(world)
    link.standing()
    reached, released = threading.Event(), threading.Event()
    app = boundary.app

    async def held(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == PREDICTIONS:
            reached.set()
            await asyncio.to_thread(released.wait)
        await app(scope, receive, send)

    boundary.app = held
    try:
        asking = threading.Thread(target=link.answer, args=(features(),))
        asking.start()
        reached.wait()
        assert link.standing().shards == 2
    finally:
        released.set()
        asking.join()
        boundary.app = app
        link.close()
