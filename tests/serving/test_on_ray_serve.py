"""The API on Ray Serve: real replicas, a real coordinator, callers that never pause."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest
import ray
from ray import serve

from cluster.client import Client
from cluster.config.specification import read_specification
from cluster.coordinator_actor.actor import ACTOR_NAME
from cluster.coordinator_actor.launch import namespace_of
from cluster.coordinator_actor.record import RECORD_KEY
from cluster.serving.deployment import serve_federation
from storage.errors import Conflict, Invalid, ObjectMissing, SisaError, Unavailable
from tests.deploy_files.scraped import RECORDED, label_names
from tests.doubles.user_folder import UserFolder
from tests.doubles.workers.local_workers import without_ray
from tests.multinode.patience import until
from tests.residue.markers import files_under
from tests.residue.ray_places import session_folder
from tests.serving.on_ray import REPLICAS, Served, serve_settings, served_on_ray
from tests.serving.test_under_load import CALLERS, asked_without_pause
from tests.serving.world import points

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ANSWERS = 100
"""How many answers have to arrive while something is going on."""


@pytest.fixture(scope="module")
def served(joined_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A federation that is served under a prefix; its coordinator erases with a worker of its own each time."""
    home = UserFolder(tmp_path_factory.mktemp("served")).fill()
    home.specify(erasure__batch_window_seconds=0.0, cluster__workers=1, **serve_settings())
    with without_ray():
        home.json("train")
    with served_on_ray(home) as made:
        assert made.launched
        yield made
    ray.kill(ray.get_actor(ACTOR_NAME, namespace=namespace_of(made.specification, home.objects)), no_restart=True)
    home.objects.delete(RECORD_KEY)


def test_no_answer_fails_and_none_is_tainted(served: Served) -> None:
    """While people are erased over HTTP, hundreds of answers come over HTTP, none from below the floor, none failed."""
    asked, generations = points()["points"], set[int]()

    def ask() -> None:
        floor = served.state().floor
        with served.client("predict") as client:
            for _ in range(5):
                found = client.predict(asked)
                assert found.generation >= floor
                generations.add(found.generation)

    with served.client("erase") as eraser, asked_without_pause(ask) as counts:

        def is_seen() -> bool:
            return counts.total() > 0 and max(generations) == served.state().generation

        until(is_seen, "answers of the first generation")
        people = ["secret-person-000", "secret-person-001"]
        assert eraser.erase(subjects=people, wait_seconds=300).state == "complete"
        until(is_seen, "answers of the last generation")
        until(lambda: 5 * counts.total() >= ANSWERS, "so many answers")
    assert len(generations) > 2
    with served.client("audit") as auditor:
        for request in auditor.status().requests:
            assert json.loads(auditor.receipt(request.request_id))["log"]


def test_slow_bodies_keep_nobody_waiting(served: Served) -> None:
    """While one token holds far more connections than bodies of it may come in, all others are answered."""
    settings, held = served.specification.serve, list[socket.socket]()
    begun = (
        f"POST {settings.prefix}/v1/predictions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {served.tokens['predict']}\r\nContent-Length: 1000\r\n\r\n{{"
    )
    try:
        for _ in range(REPLICAS * 100):
            held.append(socket.create_connection((settings.host, settings.port)))
            held[-1].sendall(begun.encode())
        with served.client("federate") as client:
            until(client.is_healthy, "a replica that has loaded a generation")
            until(served.answers_now, "an answer of the current generation")
        with served.client("erase") as client:
            erased = client.erase(subjects=["secret-person-006"], request_id="er-beside-slow-bodies", wait_seconds=300)
            assert erased.state == "complete"
    finally:
        for each in held:
            each.close()


def test_a_killed_replica_costs_what_it_had_in_hand(served: Served) -> None:
    """With one of two replicas killed answers go on at once; Serve starts another, which is as current."""
    asked, lost = points()["points"], list[SisaError]()
    names = served.replicas()

    def ask() -> None:
        with served.client("predict") as client:
            for _ in range(5):
                try:
                    client.predict(asked)
                except Unavailable:
                    raise
                except SisaError as error:  # Serve's own answer for what the dead replica had in hand
                    lost.append(error)

    with asked_without_pause(ask) as counts:
        until(lambda: 5 * counts.total() >= 50, "answers")
        ray.kill(ray.get_actor(names[0], namespace="serve"), no_restart=True)
        until(lambda: names[0] not in (now := served.replicas()) and len(now) == 2, "another replica")
        until(lambda: 5 * counts.total() >= ANSWERS, "answers")
    assert len(lost) <= CALLERS
    until(served.answers_now, "an answer of the current generation")


def test_replicas_are_silent_while_the_store_is_away(served: Served) -> None:
    """Replicas that cannot confirm the floor answer 503 and nothing else, and answer again once they can."""
    away = served.home.folder / "away"
    served.home.store.rename(away)
    silent = Client(served.url, served.tokens["predict"], pause=lambda _: None)
    with silent, pytest.raises(Unavailable, match="cannot"):
        silent.predict(points()["points"])
    away.rename(served.home.store)
    until(served.answers_now, "an answer of the current generation")


def test_who_may_predict_cannot_erase(served: Served) -> None:
    """Roles hold behind Serve's proxy as they do before it, and so do limits and the names of paths."""
    with served.client("predict") as client, pytest.raises(Invalid, match="may not do this"):
        client.erase(subjects=["secret-person-003"])
    with Client(f"{served.url}/v2", "") as client, pytest.raises(SisaError, match="nothing at this path"):
        client.status()
    with Client(served.url.replace("/small", "/other"), "") as client, pytest.raises(SisaError, match="status 404"):
        client.status()


def test_an_officer_intervenes_through_the_coordinator(served: Served) -> None:
    """The coordinator's actor does what the replica is asked for, and its errors arrive as what they are."""
    with served.client("officer") as client:
        client.erase(subjects=["secret-person-004"], request_id="er-held", held="legal hold 17")
        assert [each.reason for each in client.extend("er-held", 3, "for the court").extensions] == ["for the court"]
        with pytest.raises(Conflict, match="has been paused since"):
            client.hold("er-held", "again")
        assert client.release("er-held").held == ""
        assert client.erase(subjects=["secret-person-005"], request_id="er-2", held="legal hold 18").held
        assert client.cancel("er-2", "withdrawn").state == "cancelled"
    with served.client("erase") as client, pytest.raises(ObjectMissing, match="no such erasure request"):
        client.request("er-held")


def test_monitoring_scrapes_what_alerts_ask_for(served: Served) -> None:
    """A Ray node exports the recorded metrics with the recorded labels, and no metric of ours beside them."""
    complete_an_erasure(served)
    recorded = label_names(RECORDED)

    def scraped() -> dict[str, set[frozenset[str]]]:
        found = label_names(_scraped())
        return found if found.keys() >= recorded.keys() else {}

    found = until(scraped, "all metrics")
    assert {name: found[name] for name in recorded} == recorded
    assert {name for name in found if name.startswith("ray_sisa_")} <= recorded.keys()


def test_addresses_that_others_have(served: Served, tmp_path: Path) -> None:
    """Another port than Serve's own, and a prefix that another federation has, are refused: nothing changes, and no
    coordinator is left that was launched for it.
    """
    settings = served.specification.serve
    with pytest.raises(Conflict, match="does not listen at the address"):
        serve_federation(replace(served.specification, serve=replace(settings, port=1)))
    other = UserFolder(tmp_path).fill(serve__port=settings.port, serve__prefix="/small")
    with without_ray():
        other.json("train")
    specification = read_specification(other.config)
    with pytest.raises(Conflict, match="has its prefix"):
        serve_federation(specification)
    with pytest.raises(ValueError, match="Failed to look up actor"):
        ray.get_actor(ACTOR_NAME, namespace=namespace_of(specification, other.objects))
    with served.client("predict") as client:
        assert client.is_healthy()


def test_no_secret_reaches_a_log_of_ray(served: Served) -> None:
    """Nothing that Ray writes on this machine holds a token, a name that was erased, or a feature."""
    secrets = [token.rpartition("_")[2].encode() for token in served.tokens.values()] + [b"secret-person-00"]
    written = files_under(session_folder())
    assert any(Path(path).parent.name == "serve" for path in written)
    assert any(b'"event":"http_request"' in text for text in written.values())
    assert [path for path, text in written.items() if any(secret in text for secret in secrets)] == []
    assert serve.status().applications


def complete_an_erasure(served: Served) -> None:
    """Wait for the erasures that other tests have left; if there is not one, have one."""
    with served.client("audit") as auditor, served.client("erase") as eraser:
        if not auditor.status().requests:
            eraser.erase(subjects=["secret-person-007"], wait_seconds=300)

        def are_over() -> bool:
            return {each.state for each in auditor.status().requests} <= {"complete", "cancelled"}

        until(are_over, "all erasures to be over")
        assert "complete" in {each.state for each in auditor.status().requests}


def _scraped() -> str:
    (node,) = [node for node in ray.nodes() if node["Alive"]]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urlopen(address, timeout=60) as answer:
        return str(answer.read(), "utf-8")
