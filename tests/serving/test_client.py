"""The client: the same words as the federation's own, over a real connection."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pyarrow as pa
import pytest

import cluster
from cluster.client import Client, NotAllowed
from cluster.release import OtherRelease
from storage.errors import Conflict, Corrupt, Invalid, ObjectMissing, SisaError, Unavailable
from storage.release import RELEASE
from tests.doubles.user_folder import MARKED, as_table, small_points
from tests.serving.world import World, points


class Frame:
    """A table of another library."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def test_the_client_speaks_the_api(world: World, url: str) -> None:
    """Predictions from tables and lists, an erasure waited for, its receipt, the status: each as its own type."""
    with Client(url, world.tokens["predict"]) as client:
        table = as_table({name: values[:3] for name, values in small_points().items()})
        found = client.predict(table)
        assert (found.generation, found.constituents, found.shards) == (1, 3, 3)
        assert found.table.column("id").to_pylist() == table.column("id").to_pylist()
        frame = table.set_column(0, "id", table.column("id").dictionary_encode())
        assert client.predict(frame).table.equals(found.table)
        assert client.predict(Frame(table)).table.equals(found.table)
        listed = client.predict(points()["points"]).table
        assert listed.column("prediction").equals(found.table.column("prediction"))
        assert client.status().generation == 1
        assert client.is_healthy()
        with pytest.raises(Invalid, match="may not do this"):
            client.erase(subjects=[MARKED])
    with Client(url, world.tokens["erase"]) as client:
        request = client.erase(subjects=[MARKED], request_id="er-1", wait_seconds=60)
        assert (request.state, request.points) == ("complete", 4)
        assert client.erase(subjects=[MARKED], request_id="er-1") == replace(request, salt="")
        with pytest.raises(Conflict, match="er-1"):
            client.erase(subjects=["secret-person-001"], request_id="er-1")
        assert client.erase(ids=["secret-id-0001"], held="legal hold 17", wait_seconds=60).state == "waiting"
    with Client(url, world.tokens["audit"]) as client:
        assert json.loads(client.receipt("er-1"))["keys"]
        with pytest.raises(ObjectMissing, match="no such erasure request"):
            client.receipt("er-2")
        assert {each.request_id for each in client.status().requests} > {"er-1"}


def test_the_client_intervenes(world: World, url: str) -> None:
    """An officer pauses, releases, extends and cancels with the words of the commands, and gets the same errors."""
    with Client(url, world.tokens["officer"]) as client:
        client.erase(subjects=[MARKED], request_id="er-1", held="legal hold 17")
        moved = client.extend("er-1", 30, "for the court")
        assert [each.reason for each in moved.extensions] == ["for the court"]
        with pytest.raises(Conflict, match="moved before"):
            client.extend("er-1", 30, "for the court")
        released = client.release("er-1")
        assert (released.held, [each.reason for each in released.holds]) == ("", ["legal hold 17"])
        world.until_idle()
        with pytest.raises(Conflict, match="complete already"):
            client.hold("er-1", "too late")
        client.erase(subjects=["secret-person-001"], request_id="er-2", held="legal hold 18")
        with pytest.raises(Conflict, match="has been paused since"):
            client.hold("er-2", "again")
        with pytest.raises(Invalid, match="a reason is 1 to 500"):
            client.hold("er-2", "")
        assert client.cancel("er-2", "withdrawn by the person").state == "cancelled"
        with pytest.raises(ObjectMissing, match="no such erasure request"):
            client.hold("er-3", "why")
    with Client(url, world.tokens["erase"]) as client, pytest.raises(NotAllowed, match="'officer'"):
        client.cancel("er-1", "withdrawn")


def test_the_client_looks_people_up(world: World, url: str) -> None:
    """An officer, and no other role, gets the federation's own answer, in the order asked."""
    names: list[str | int] = [MARKED, "nobody", "Secret Person 001", 17]
    with cluster.connect(world.home.config) as federation:
        expected = federation.lookup(names)
    with Client(url, world.tokens["officer"]) as client:
        assert client.lookup(iter(names)) == expected
        assert [each.points for each in expected] == [4, 0, 0, 0]
        with pytest.raises(Invalid, match="more than 100"):
            client.lookup(["nobody"] * 101)
    with Client(url, world.tokens["erase"]) as client, pytest.raises(NotAllowed, match="'officer'"):
        client.lookup(names)


def test_an_answer_about_other_people_is_none(world: World, moody: HTTPServer) -> None:
    """A look-up's answer for fewer people than were named, and unknown names that were not given, are not believed."""
    found = {"points": 4, "similar": {"points": 0, "subjects": 0}, "erased": False}
    answer = world.erase(MARKED, key="er-1").json() | {"unknown_subjects": [1]}
    moody.answers = [(200, {}, json.dumps(body).encode()) for body in ({"subjects": [found]}, answer)]  # type: ignore[attr-defined]
    with Client(f"http://127.0.0.1:{moody.server_port}", "t") as client:
        for act in (lambda: client.lookup(["a", "b"]), lambda: client.erase(subjects=[MARKED], request_id="er-1")):
            with pytest.raises(SisaError, match="not what the API's version 1 says"):
                act()


def test_bad_data_are_refused_as_on_the_command_line(world: World, url: str) -> None:
    """What the server refuses is raised as the error it is, with its remedy."""
    with Client(url, world.tokens["predict"]) as client:
        with pytest.raises(Invalid, match="no column 'x00'"):
            client.predict(pa.table({"x": [1]}))
        with pytest.raises(Invalid, match="expected 16"):
            client.predict([{"features": [1]}])
    with Client(url) as client, pytest.raises(Invalid, match="bearer token is needed"):
        client.predict(points()["points"])


class _Moody(BaseHTTPRequestHandler):
    """Gives the answers that its server was set up with."""

    def do_GET(self) -> None:
        """Answer with the next of the server's answers."""
        status, headers, body = self.server.answers.pop(0)  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def moody() -> Iterator[HTTPServer]:
    """A server of bad answers."""
    server = HTTPServer(("127.0.0.1", 0), _Moody)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


AWAY = (503, {"Retry-After": "3"}, b'{"error": {"kind": "unavailable", "message": "away", "remedy": "Wait."}}')


def test_what_is_away_is_asked_for_again(moody: HTTPServer) -> None:
    """After a 503 or 429 the client waits as long as the server says, and raises when that does not help."""
    pauses: list[float] = []
    client = Client(f"http://127.0.0.1:{moody.server_port}", "t", pause=pauses.append)
    moody.answers = [AWAY, (429, {}, b""), (404, {}, AWAY[2])]  # type: ignore[attr-defined]
    with pytest.raises(ObjectMissing, match=r"away\. Wait\."):
        client.request("er-1")
    assert pauses == [3.0, 0.4]
    moody.answers = [AWAY] * 6  # type: ignore[attr-defined]
    with pytest.raises(Unavailable, match="away"):
        client.request("er-1")
    assert moody.answers == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("change", ["hold", "release", "extend", "cancel"])
def test_an_intervention_is_asked_for_once(moody: HTTPServer, change: str) -> None:
    """A second one would be a conflict: if the server is away, the client raises at once; it uses no old connection."""
    client = Client(f"http://127.0.0.1:{moody.server_port}", "t", pause=lambda _: None)
    arguments = {"hold": ("why",), "release": (), "extend": (3, "why"), "cancel": ("why",)}[change]
    moody.answers = [(404, {}, AWAY[2]), AWAY, (404, {}, AWAY[2])]  # type: ignore[attr-defined]
    with pytest.raises(ObjectMissing, match="away"):
        client.request("er-1")
    before = client._connection
    with pytest.raises(Unavailable, match="away"):
        getattr(client, change)("er-1", *arguments)
    assert client._connection is not before
    assert len(moody.answers) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("status", "body", "error", "text"),
    [
        (302, b"", SisaError, "status 302, not as the API does"),
        (200, b"<html>", SisaError, "not what the API's version 1 says"),
        (500, AWAY[2], SisaError, "away"),
        (418, b"{}", Invalid, "status 418"),
    ],
)
def test_another_server_is_not_taken_for_the_api(
    moody: HTTPServer, status: int, body: bytes, error: type[SisaError], text: str
) -> None:
    """An answer of another shape is an error that says so; nobody is followed elsewhere with the token."""
    moody.answers = [(status, {"Location": "http://127.0.0.1:1/"}, body)]  # type: ignore[attr-defined]
    with Client(f"http://127.0.0.1:{moody.server_port}", "t") as client, pytest.raises(error, match=text):
        client.request("er-1")


@pytest.mark.parametrize("status", [200, 404, 409])
def test_a_server_of_another_api_is_refused(moody: HTTPServer, status: int) -> None:
    """No answer of it is read: it may mean something else. Both releases are named where they are known."""
    moody.answers = [(status, {"Sisa-Release": "9.9.9+api2.sites1.more3"}, b"{}")]  # type: ignore[attr-defined]
    reported = rf"speaks version 2 of the HTTP API, this client version 1 \[server=9\.9\.9 client={RELEASE}\]"
    with Client(f"http://127.0.0.1:{moody.server_port}", "t") as client, pytest.raises(OtherRelease, match=reported):
        client.status()


def test_a_server_of_another_release_is_named(moody: HTTPServer) -> None:
    """It is used as long as its API is the same; an answer that is not read names both releases."""
    said = {"Sisa-Release": "9.9.9+sites7.api1"}
    moody.answers = [(200, said, b"a receipt"), (200, said, b"{}")]  # type: ignore[attr-defined]
    with Client(f"http://127.0.0.1:{moody.server_port}", "t") as client:
        assert client.receipt("er-1") == b"a receipt"
        assert client.server_release == "9.9.9"
        with pytest.raises(Corrupt, match=rf"API's version 1 says \[server=9\.9\.9 client={RELEASE}\]\. .*the older"):
            client.request("er-1")


def test_nobody_there_is_reported() -> None:
    """Where no server listens the client says where it looked, and never shows its token."""
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()
    client = Client(f"http://127.0.0.1:{port}", "sisa_secret", pause=lambda _: None)
    with pytest.raises(Unavailable, match=f"does not answer: ConnectionRefusedError .*{port}") as caught:
        client.status()
    assert "secret" not in f"{caught.value} {client!r} {vars(caught.value)}"


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://host", "http://", "http://me:pw@host", "http://h?x=1"])
def test_addresses_that_are_none(url: str) -> None:
    """An address that is not an HTTP server's is refused before anything is sent."""
    with pytest.raises(Invalid, match="not the address of an HTTP API"):
        Client(url)
