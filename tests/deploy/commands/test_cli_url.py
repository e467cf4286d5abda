"""The commands with ``--url``: the same words, envelopes and exit codes, with a server in place of a specification."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import uvicorn

import cluster
import cluster.training.workers
from cluster.client import Client
from cluster.config.specification import read_specification
from cluster.tokens import Role
from deploy.views.remote import open_client
from tests.doubles.user_folder import MARKED, CommandResult, UserFolder, run, small_points
from tests.doubles.workers.local_workers import LocalWorkers
from tests.serving.world import World, coordinator_of, open_world

ROOT = Path(__file__).parents[3]
FREE = ("predict", "asked.csv", "--out", "out.csv")
"""A command that must not get as far as its file."""
COMMANDS = """
import contextlib, io, json, os, sys
from deploy.commands.cli import main
for token, words in json.loads(sys.argv[1]):
    os.environ["SISA_TOKEN"] = token
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            main(words)
    except SystemExit as ended:
        print(json.dumps([ended.code, sorted({"ray", "torch"} & set(sys.modules)), said.getvalue()]))
"""


@dataclass(frozen=True, slots=True)
class Served:
    """A federation, its coordinator and its API."""

    world: World
    url: str

    def json(self, role: Role, *words: str) -> CommandResult:
        """Run a command at the server with a token of this role."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SISA_TOKEN", self.world.tokens[role])
            said = run(*words, "--url", self.url, "--json")
        assert self.world.tokens[role] not in said.out + said.err
        return said

    def text(self, role: Role, *words: str) -> str:
        """Run a command at the server with a token of this role; return what people read."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SISA_TOKEN", self.world.tokens[role])
            said = run(*words, "--url", self.url)
        assert said.code == 0
        return said.out


def person(number: int) -> str:
    """Return somebody whose data no other test erases."""
    return f"secret-person-{number:03d}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all tests, each of which erases people of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
        patch.setattr(cluster.training.workers, "join_ray", lambda _: False)
        home = UserFolder(tmp_path_factory.mktemp("served")).fill(
            erasure__batch_window_seconds=0.0, serve__refresh_seconds=0.05
        )
        resident = coordinator_of(read_specification(home.config))
        world = open_world(home, resident)
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(world.client.app, log_level="critical", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield Served(world, f"http://127.0.0.1:{listening.getsockname()[1]}")
        server.should_exit = True
        thread.join()
        listening.close()
        world.service.close()
        resident.stop()


@pytest.fixture(autouse=True)
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a specification, and no token in the environment; nobody waits for a server that is away."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SISA_TOKEN", raising=False)
    monkeypatch.setattr("deploy.views.remote.Client", partial(Client, pause=lambda _: None))
    return tmp_path


def test_a_file_is_predicted(served: Served, stranger: Path) -> None:
    """The file of answers is the one that is written on the spot, and the envelope says which ensemble answered."""
    file = served.world.home.write("asked.parquet", {key: values[:30] for key, values in small_points().items()})
    said = served.json("predict", "predict", str(file), "--out", "out.parquet")
    assert said.code == 0
    with cluster.connect(served.world.home.config) as federation:
        here = federation.predict(str(file))
        assert said.data == {
            "out": "out.parquet",
            "points": 30,
            "generation": here.generation,
            "generations": [here.generation],
            "constituents": here.constituents,
            "shards": 3,
            "guarantee": "exact",
        }
        here.write(stranger / "here.parquet")
    assert pq.read_table("out.parquet").equals(pq.read_table("here.parquet"))
    assert {path.name for path in stranger.iterdir()} == {"out.parquet", "here.parquet"}


def test_wide_points_travel_in_several_requests(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is more than a server takes at once is asked in parts, in order, however few points that is."""
    file = served.world.home.write("wide.parquet", {key: values[:30] for key, values in small_points().items()})
    assert served.json("predict", "predict", str(file), "--out", "whole.parquet").data["points"] == 30
    monkeypatch.setattr("deploy.views.remote._BYTES_A_REQUEST", 700)
    asked: list[int] = []
    predict = Client.predict

    def counted(self: Client, data: Any) -> Any:
        asked.append(data.num_rows)
        return predict(self, data)

    monkeypatch.setattr(Client, "predict", counted)
    assert served.json("predict", "predict", str(file), "--out", "parts.parquet").data["points"] == 30
    assert sum(asked) == 30
    assert len(asked) >= 3
    parts, whole = pq.read_table("parts.parquet"), pq.read_table("whole.parquet")
    assert parts.select(["id", "prediction"]).equals(whole.select(["id", "prediction"]))
    for name in whole.column_names[2:]:  # the last bits of a matrix product depend on how many points it has
        assert parts[name].to_pylist() == pytest.approx(whole[name].to_pylist(), rel=1e-5)


def test_answers_of_several_generations_have_the_weakest_guarantee(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may be started with another specification between two requests of one command."""
    file = served.world.home.write("wide.parquet", {key: values[:30] for key, values in small_points().items()})
    monkeypatch.setattr("deploy.views.remote._BYTES_A_REQUEST", 700)
    promised = cycle(["exact", "certified(epsilon=1.0, delta=1e-05)"])
    predict = Client.predict
    monkeypatch.setattr(Client, "predict", lambda self, data: replace(predict(self, data), guarantee=next(promised)))
    said = served.json("predict", "predict", str(file), "--out", "parts.parquet").data
    assert said["guarantee"] == "certified(epsilon=1.0, delta=1e-05)"


def test_an_erasure_from_its_submission_to_its_receipt(served: Served, stranger: Path) -> None:
    """A request is submitted and waited for, looked up, submitted once more, and its receipt checked."""
    said = served.json("erase", "erase", "--subject", MARKED, "--request-id", "er-1", "--wait")
    assert said.code == 0, said
    assert (said.data["request_id"], said.data["state"], said.data["points"]) == ("er-1", "complete", 4)
    assert said.data["retrains_from"] is None
    assert "request er-1: complete\n" in said.err
    for role in ("erase", "audit"):
        assert served.json(role, "status", "er-1").data | {"salt": said.data["salt"]} == said.data
    again = served.json("erase", "erase", "--subject", MARKED, "--request-id", "er-1")
    assert (again.code, again.data | {"salt": said.data["salt"]}) == (0, said.data)
    receipt = served.json("audit", "receipt", "er-1")
    assert receipt.data["request_id"] == "er-1"
    (stranger / "receipt.json").write_text(receipt.out, encoding="utf-8")
    assert run("receipt", "--check", "receipt.json", "--json").data["valid"]


def test_people_read_the_same(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --json there is text, from which the next command can be made."""
    monkeypatch.setenv("SISA_TOKEN", served.world.tokens["erase"])
    erased = run("erase", "--id", "secret-id-0003", "--request-id", "er-text", "--wait", "--url", served.url)
    assert (erased.code, erased.out.startswith("request er-text: complete; 1 data points erased")) == (0, True)
    assert "er-text is complete" in run("status", "er-text", "--url", served.url).out
    monkeypatch.setenv("SISA_TOKEN", served.world.tokens["predict"])
    assert "federation small in the server's store" in run("status", "--url", served.url).out


def test_how_erasures_end(served: Served) -> None:
    """A refusal gives 2, a conflict 4, a pause 0, each with the request's data if there is a request."""
    refused = served.json("erase", "erase", "--subject", "nobody", "--request-id", "er-2", "--wait")
    assert (refused.code, refused.error["kind"], refused.data["state"]) == (2, "refused", "refused")
    held = served.json("erase", "erase", "--subject", person(1), "--request-id", "er-3", "--hold", "legal hold")
    assert (held.code, held.data["state"], held.data["held"]) == (0, "waiting", "legal hold")
    waited = served.json("erase", "erase", "--subject", person(1), "--request-id", "er-3", "--wait")
    assert (waited.code, waited.data["state"]) == (0, "waiting")
    other = served.json("erase", "erase", "--subject", person(2), "--request-id", "er-3")
    assert (other.code, other.error["kind"]) == (4, "conflict")
    assert served.json("erase", "erase", "--subject", person(3), "--request-id", "er-4").code == 0
    served.world.until_idle()
    over = served.json("erase", "erase", "--subject", person(3), "--request-id", "er-4", "--hold", "too late")
    assert (over.code, over.data["state"]) == (0, "complete")


def test_names_from_a_file(served: Served, stranger: Path) -> None:
    """A file's names are all submitted, or none where a line is bad: before anything is sent."""
    names = stranger / "names.txt"
    names.write_text(f"{person(4)}\n{person(5)}\n", encoding="utf-8")
    said = served.json("erase", "erase", "--file", "names.txt", "--request-id", "er-5")
    assert (said.code, said.data["subjects"]) == (0, 2)
    names.write_bytes(b"secret-person-006\n\xff\n")
    bad = served.json("erase", "erase", "--file", "names.txt", "--request-id", "er-6")
    assert (bad.code, bad.error["kind"]) == (2, "invalid")
    assert served.json("erase", "status", "er-6").error["kind"] == "missing"


def test_an_officer_intervenes(served: Served) -> None:
    """``sisa request`` does at a server what it does on the spot, with the same envelopes; for others it is refused."""
    held = served.json("officer", "erase", "--subject", person(13), "--request-id", "held", "--hold", "legal hold 17")
    assert held.data["state"] == "waiting"
    moved = served.json("officer", "request", "extend", "held", "--days", "30", "--reason", "for the court")
    assert [each["reason"] for each in moved.data["extensions"]] == ["for the court"]
    again = served.json("officer", "request", "hold", "held", "--reason", "again")
    assert (again.code, again.error["kind"]) == (4, "conflict")
    refused = served.json("erase", "request", "cancel", "held", "--reason", "withdrawn")
    assert (refused.code, "officer" in refused.error["remedy"]) == (2, True)
    assert served.json("officer", "request", "release", "held").data["held"] == ""
    other = ("erase", "--subject", person(14), "--request-id", "withdrawn", "--hold", "legal hold 18")
    assert served.json("officer", *other).code == 0
    text = served.text("officer", "request", "cancel", "withdrawn", "--reason", "by the person")
    assert "request withdrawn is cancelled: by the person" in text
    shown = served.json("officer", "request", "show", "withdrawn")
    assert (shown.code, shown.data["state"], shown.data["reason"]) == (0, "cancelled", "by the person")


def test_the_status_is_reported_by_role(served: Served) -> None:
    """An auditor sees the requests, the role predict only the federation; the JSON is that of the local command."""
    assert served.json("erase", "erase", "--subject", person(7), "--request-id", "er-7").code == 0
    seen = served.json("audit", "status")
    assert "er-7" in {each["request_id"] for each in seen.data["requests"]}
    plain = served.json("predict", "status")
    assert (plain.code, plain.data["requests"], plain.data["shards"]) == (0, [], 3)
    assert [(each["points"], each["digest"]) for each in plain.data["constituents"]] == [(None, None)] * 3
    assert "None" not in served.text("predict", "status")
    assert seen.data.keys() == plain.data.keys() == served.world.home.json("status").data.keys()


@pytest.mark.parametrize(
    ("role", "words", "kind", "text"),
    [
        ("predict", ("erase", "--subject", "x"), "invalid", "'predict' may not do this"),
        ("erase", ("status",), "invalid", "'erase' may not do this"),
        ("erase", ("receipt", "er-none"), "missing", "there is no such erasure request"),
        ("predict", ("receipt", "er-none"), "invalid", "'predict' may not do this"),
        ("audit", FREE, "invalid", "no such file"),
        ("erase", ("status", "er-none"), "missing", "there is no such erasure request"),
        ("audit", ("receipt", "er-none"), "missing", "there is no such erasure request"),
        ("erase", ("erase", "--subject", ""), "invalid", "an empty name"),
        ("erase", ("erase",), "invalid", "no subject and no data point"),
        ("erase", ("erase", "--subject", "x", "--request-id", "no id"), "invalid", "over HTTP a request id"),
        ("erase", ("erase", "--subject", "x", "--request-id", "\N{EURO SIGN}"), "invalid", "over HTTP a request id"),
        ("erase", ("erase", "--subject", "x", "--request-id", "a\nb"), "invalid", "printable"),
        ("erase", ("erase", "--subject", "x", "--dry-run"), "usage", "--dry-run is not available with --url"),
        ("predict", ("evaluate", "asked.csv"), "usage", "only the specification knows"),
        ("predict", ("status", "--config", "other.toml"), "usage", "give one of the two"),
        ("predict", ("predict", "asked.csv", "--out", "out.xls"), "invalid", "ending is unknown"),
    ],
)
def test_wrong_usage_is_reported(served: Served, role: Role, words: tuple[str, ...], kind: str, text: str) -> None:
    """What nobody can do, or not with this token, ends with 2 and the reason."""
    said = served.json(role, *words)
    assert (said.code, said.error["kind"]) == (2, kind)
    assert text in said.error["message"]
    assert said.error["remedy"]


@pytest.mark.parametrize(
    ("token", "text"),
    [
        (None, "SISA_TOKEN is not set"),
        (" \n", "SISA_TOKEN is not set"),
        ("sisa_0123456789ab_" + "0" * 64, "the token is not known"),
        ("sisa_0123\n456789", "not a valid token"),
        ("sisa_\N{EURO SIGN}", "not a valid token"),
    ],
)
def test_bad_tokens(served: Served, monkeypatch: pytest.MonkeyPatch, token: str | None, text: str) -> None:
    """A missing, unknown or malformed token is named as the cause, and never shown."""
    if token is not None:
        monkeypatch.setenv("SISA_TOKEN", token)
    said = run("status", "--url", served.url, "--json")
    assert (said.code, said.error["kind"]) == (2, "invalid")
    assert text in said.error["message"]
    assert "0123" not in said.out + said.err


@pytest.mark.parametrize(
    ("url", "code", "text"),
    [
        ("{url}/v1", 2, "there is nothing at this path"),
        ("{place}", 2, "not the address of an HTTP API"),
        ("", 2, "not the address of an HTTP API"),
        ("http://{place}0000", 2, "not the address of an HTTP API"),
        ("http://a..b", 2, "not the address of an HTTP API"),
        ("http://[::1", 2, "not the address of an HTTP API"),
        ("http://me:secret@{place}", 2, "not the address of an HTTP API"),
        ("https://{place}", 5, "the server does not answer: SSLError"),
        ("http://127.0.0.1:1", 5, "the server does not answer: ConnectionRefusedError"),
    ],
)
def test_bad_addresses(served: Served, monkeypatch: pytest.MonkeyPatch, url: str, code: int, text: str) -> None:
    """A wrong address gives an error with what to check; a password in the address is not repeated."""
    monkeypatch.setenv("SISA_TOKEN", served.world.tokens["audit"])
    place = served.url.removeprefix("http://")
    said = run("status", "--url", url.format(url=served.url, place=place), "--json")
    assert said.code == code
    assert text in said.error["message"]
    assert said.error["remedy"]
    assert "secret" not in said.out


class _Curt(BaseHTTPRequestHandler):
    """Answers everything with the server's one answer."""

    def do_GET(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.send_header("Content-Length", str(len(self.server.body)))  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(self.server.body)  # type: ignore[attr-defined]

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def curt(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, bytes], str]]:
    """Start a server that gives one answer to everything; call it with the answer to get its address."""
    monkeypatch.setenv("SISA_TOKEN", "t")
    server: Any = HTTPServer(("127.0.0.1", 0), _Curt)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def answering(status: int, body: bytes) -> str:
        server.status, server.body = status, body
        return f"http://127.0.0.1:{server.server_port}"

    yield answering
    server.shutdown()
    thread.join()
    server.server_close()


TOLD = json.dumps({"error": {"kind": "any", "message": "what happened", "remedy": "what to do"}}).encode()


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, 2), (403, 2), (404, 2), (409, 4), (413, 2), (422, 2), (429, 5), (500, 1), (503, 5)],
)
def test_an_answers_status_becomes_the_exit_code(curt: Callable[[int, bytes], str], status: int, code: int) -> None:
    """What the API refuses ends the command as the same refusal does on the spot, in the API's words."""
    said = run("status", "--url", curt(status, TOLD), "--json")
    assert said.code == code
    assert said.error["message"] == "what happened"
    assert said.error["remedy"] == "what to do"


@pytest.mark.parametrize(("status", "body", "code"), [(200, b"<html>", 1), (301, b"", 2), (404, b"<html>", 2)])
@pytest.mark.parametrize("words", [("status",), ("status", "er-1"), ("predict", "asked.csv", "--out", "out.csv")])
def test_another_server_is_reported(
    curt: Callable[[int, bytes], str], stranger: Path, words: tuple[str, ...], status: int, body: bytes, code: int
) -> None:
    """If something other than the API answers, the remedy names the likely mistake, the address."""
    (stranger / "asked.csv").write_text("x00\n1\n", encoding="utf-8")
    said = run(*words, "--url", curt(status, body), "--json")
    assert said.code == code
    assert "Check the address" in said.error["remedy"]
    assert not (stranger / "out.csv").exists()


def test_an_erasure_that_nobody_answered_can_be_repeated(curt: Callable[[int, bytes], str]) -> None:
    """If it is unknown whether a request was accepted, the remedy gives the id under which to repeat it."""
    said = run("erase", "--subject", "x", "--url", curt(503, TOLD), "--json")
    assert said.code == 5
    assert "--request-id er-" in said.error["remedy"]


def test_an_interrupt_says_what_becomes_of_the_request(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted while it waits, the command says that the request is accepted, and which one it is."""

    def interrupt(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "follow", interrupt)
    said = served.json("erase", "erase", "--subject", person(8), "--wait")
    assert (said.code, said.error["kind"]) == (1, "interrupted")
    assert said.data["request_id"] in said.error["message"]
    monkeypatch.setattr(Client, "erase", interrupt)
    said = served.json("erase", "erase", "--subject", person(9))
    assert "nothing will be erased" in said.error["message"]


def test_watching_goes_on_until_interrupted(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --watch the status is shown until an interrupt, and then once more."""
    monkeypatch.setenv("SISA_TOKEN", served.world.tokens["audit"])
    looks: list[float] = []

    def wait(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("deploy.views.watching.time.sleep", wait)
    said = run("status", "--watch", "--url", served.url)
    assert (said.code, len(looks)) == (0, 3)
    assert "federation small" in said.out


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://127.0.0.1:8000", False),
        ("http://localhost", False),
        ("http://[::1]:8000/prefix", False),
        ("https://sisa.example.org", False),
        ("http://sisa.example.org", True),
        ("http://10.0.0.1:8000", True),
    ],
)
def test_a_token_in_the_clear_is_warned_of(capsys: pytest.CaptureFixture[str], url: str, warned: bool) -> None:
    """Plain HTTP to another machine works, with a warning on stderr."""
    open_client(url, "t").close()
    said = capsys.readouterr()
    assert said.out == ""
    assert ("sent unencrypted" in said.err) == warned


def test_nothing_heavy_is_loaded(served: Served, stranger: Path) -> None:
    """A machine with --url needs neither Ray nor torch: none of them is even imported."""
    served.json("erase", "erase", "--subject", person(10), "--request-id", "er-8", "--wait")
    file = served.world.home.write("few.csv", {key: values[:3] for key, values in small_points().items()})
    given: list[tuple[Role, tuple[str, ...]]] = [
        ("audit", ("status",)),
        ("audit", ("status", "er-8")),
        ("audit", ("receipt", "er-8")),
        ("erase", ("erase", "--subject", person(11))),
        ("predict", ("predict", str(file), "--out", "out.csv")),
    ]
    asked = [(served.world.tokens[role], (*words, "--url", served.url)) for role, words in given]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(asked)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=stranger,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(code, loaded) for code, loaded, _ in ends] == [(0, [])] * len(given), ends
    assert {path.name for path in stranger.iterdir()} <= {"out.csv"}


def test_somebody_is_traced_readmitted_and_answered(served: Served, stranger: Path) -> None:
    """An officer without a specification traces people, readmits them, and writes letters about both."""
    subject = person(20)
    held = served.json("officer", "trace", "--subject", subject).data
    assert [each["points"] for each in held["subjects"]] == [4]
    assert served.json("officer", "erase", "--subject", subject, "--request-id", "er-20", "--wait").code == 0
    with cluster.connect(served.world.home.config) as federation:
        here = federation.trace([subject]).subjects[0]
    (gone,) = served.json("officer", "trace", "--subject", subject).data["subjects"]
    assert (gone["points"], gone["erased"], [each["request_id"] for each in gone["requests"]]) == (0, True, ["er-20"])
    assert [each["number"] for each in gone["generations"]] == [each.number for each in here.generations]
    assert "erased, and kept out since then" in served.text("officer", "trace", "--subject", subject)
    letter = served.json("officer", "report", "er-20", "--out", "letter.html").data
    assert (letter["answer"], letter["receipt"]) == ("Yes, your data is erased.", "receipt-er-20.json")
    back = ("readmit", "--subject", subject, "--subject", "nobody", "--reason", "a new contract")
    assert served.json("officer", *back, "--request-id", "re-20").data["unknown_names"] == ["nobody"]
    served.world.until_idle()
    assert served.json("officer", "report", "re-20", "--out", "back.html").data["state"] == "readmitted"
    assert "a new contract" in (stranger / "back.html").read_text(encoding="utf-8")
    assert served.json("officer", "report", "er-none", "--out", "none.html").code == 2
    assert not (stranger / "none.html").exists()


@pytest.mark.parametrize("role", ["predict", "erase", "audit"])
def test_only_officers_trace_and_readmit(served: Served, role: Role) -> None:
    """Other tokens get nothing, and nothing of the name is repeated."""
    for words in (("trace", "--subject", MARKED), ("readmit", "--subject", MARKED, "--reason", "a new contract")):
        said = served.json(role, *words)
        assert said.code != 0
        assert MARKED not in said.out + said.err
