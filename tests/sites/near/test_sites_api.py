"""The API of a federation of several sites: one server in front of sites with their own servers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from schemathesis import GenerationMode
from starlette.testclient import TestClient

import cluster
import cluster.training.workers
from cluster.client import Client
from cluster.config.sites import SitesSpecification, read_sites
from cluster.coordinator_actor.log_lines import LogLines
from cluster.runtime.system import SystemClock
from cluster.serving.sites_app import build_sites_app
from cluster.serving.sites_service import SitesService, open_sites_service
from cluster.sites.federation import connect_sites
from cluster.tokens import Role, TokenRegister
from coordinator.receipts.bundles import bundle_from_bytes, statement_of, verify_bundle
from shards.data.messages import ARROW_STREAM, metadata_texts, stream_of, table_of_stream
from storage.location import open_store
from tests.doubles.user_folder import CommandResult, as_table, run, small_points
from tests.doubles.workers.local_workers import LocalWorkers
from tests.serving.access.table import CALLERS, NO_TOKEN, UNKNOWN, UNKNOWN_TOKEN, Route, routes_of, table
from tests.serving.description.fuzz import assert_answered, cases_of
from tests.serving.world import ROLES, error_of, points, rows
from tests.sites.near.served import Served, listening, served
from tests.sites.near.site_folders import SITES, SiteFolders
from tests.volume import examples

PERSON = "north-secret-person-003"
PATHS = [
    "/v1/predictions",
    "/v1/erasures",
    "/v1/erasures/{request_id}",
    "/v1/erasures/{request_id}/receipt",
    "/v1/status",
    "/v1/log/checkpoint",
    "/v1/keys",
    "/healthz",
]
PER_SHARD = ("points", "digest", "slice_digests")
"""Fields of a constituent that the role predict does not see."""
TABLE = table("route of several sites")


@dataclass(slots=True)
class SitesServer:
    """The federation's own server, and the sites behind it."""

    served: Served
    service: SitesService
    client: TestClient
    tokens: Mapping[Role, str]
    log: io.StringIO

    def headers(self, role: Role, **further: str) -> dict[str, str]:
        """Return the headers of somebody with a token of this role; underscores are hyphens."""
        more = {name.replace("_", "-"): value for name, value in further.items()}
        return {"Authorization": f"Bearer {self.tokens[role]}", **more}

    def predict(self, body: object = None, **headers: str) -> Any:
        """Ask for predictions."""
        return self.client.post("/v1/predictions", json=body or points(), headers=self.headers("predict", **headers))

    def erase(self, site: str | None, *subjects: str, key: str | None = None) -> Any:
        """Submit an erasure request."""
        headers = self.headers("erase", **({"Idempotency_Key": key} if key else {}))
        body = {"subjects": subjects, **({"site": site} if site is not None else {})}
        return self.client.post("/v1/erasures", json=body, headers=headers)

    def get(self, path: str, role: Role = "audit") -> Any:
        """Get what is at a path."""
        return self.client.get(path, headers=self.headers(role))


def front_of(made: Served) -> SitesServer:
    """Return the federation's server over these sites, all of them members."""
    made.specify(settings="[sites]\nquorum = 2\ntimeout_seconds = 20.0\ngrace_seconds = 20.0\n[serve]\nport = 8999\n")
    with connect_sites(made.site_folders.config) as federation:
        federation.train()
    specification = read_sites(made.site_folders.config)
    service = open_sites_service(specification)
    log = io.StringIO()
    app = build_sites_app(service, LogLines(specification.name, service.clock, log))
    register = _register(specification)
    tokens = {role: register.create(role, days=1).text for role in ROLES}
    return SitesServer(made, service, TestClient(app, raise_server_exceptions=False), tokens, log)


def _register(specification: SitesSpecification) -> TokenRegister:
    return TokenRegister(open_store(specification.store, specification.folder), SystemClock())


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SitesServer]:
    """One that many tests ask and none changes, apart from its sites' boundaries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
        patch.setattr(cluster.training.workers, "join_ray", lambda _: False)
        with served(SiteFolders(tmp_path_factory.mktemp("still")).fill()) as made:
            front = front_of(made)
            yield front
            front.service.close()


@pytest.fixture
def front(site_folders: SiteFolders) -> Iterator[SitesServer]:
    """One of this test's own."""
    with served(site_folders) as made:
        found = front_of(made)
        yield found
        found.service.close()


def test_predictions_are_those_of_the_federation(still: SitesServer, tmp_path: Path) -> None:
    """The API answers as the federation does on the spot, and says which sites that were."""
    table = as_table({name: values[:40] for name, values in small_points().items()})
    with connect_sites(still.served.site_folders.config) as federation:
        expected = federation.predict(table).table()
    found = still.predict(points(40)).json()
    parts = [{"site": name, "generation": 1, "constituents": 2, "shards": 2, "guarantee": "exact"} for name in SITES]
    assert (found["sites"], found["absent"], found["guarantee"]) == (parts, {}, "exact")
    assert (found["generation"], found["constituents"], found["shards"]) == (1, 6, 6)
    assert [line["id"] for line in found["predictions"]] == list(range(40))
    assert [line["prediction"] for line in found["predictions"]] == expected.column("prediction").to_pylist()
    scores = np.stack([expected.column(f"probability_{name}") for name in "abc"], axis=1)
    np.testing.assert_array_equal(
        scores, np.array([line["probabilities"] for line in found["predictions"]], np.float32)
    )


def test_every_form_of_asking_gets_the_same_answer(still: SitesServer) -> None:
    """Lists, columns and Arrow say the same and are answered the same; an id comes back and goes to no site."""
    expected = still.predict().json()["predictions"]
    names = [f"x{feature:02d}" for feature in range(16)]
    columns = {"id": [0, 1, 2], **{name: [values[n] for values in rows()] for n, name in enumerate(names)}}
    assert still.predict({"columns": columns}).json()["predictions"] == expected
    headers = still.headers("predict", Content_Type=ARROW_STREAM)
    answer = still.client.post("/v1/predictions", content=stream_of(pa.table(columns)), headers=headers)
    table = table_of_stream(answer.content, 10)
    assert table.column("id").to_pylist() == [0, 1, 2]
    assert table.column("prediction").to_pylist() == [line["prediction"] for line in expected]
    facts = {name: json.loads(text) for name, text in metadata_texts(table).items()}
    assert [each["site"] for each in facts["sites"]] == list(SITES)
    assert facts["absent"] == {}
    assert still.predict({"points": []}).json()["predictions"] == []


def test_the_client_speaks_to_a_federation(still: SitesServer) -> None:
    """What asks one federation's server asks that of several sites alike."""
    with listening(still.client.app) as port, Client(f"http://127.0.0.1:{port}", still.tokens["predict"]) as client:
        found = client.predict(points()["points"])
        assert (found.generation, found.constituents, found.shards) == (1, 6, 6)
        assert [(each.site, each.constituents) for each in found.sites] == [(name, 2) for name in SITES]
        assert found.absent == {}
        assert client.is_healthy()


def test_the_client_erases_at_a_site(front: SitesServer) -> None:
    """One id may name a request at each of two sites: the client follows the one at the site that it names."""
    with listening(front.client.app) as port:
        with Client(f"http://127.0.0.1:{port}", front.tokens["erase"]) as client:
            stranger = client.erase(subjects=[PERSON], site="south", request_id="er-1", wait_seconds=60)
            assert (stranger.state, stranger.points) == ("refused", 0)
            done = client.erase(subjects=[PERSON], site="north", request_id="er-1", wait_seconds=60)
            assert (done.state, done.points) == ("complete", 4)
        with Client(f"http://127.0.0.1:{port}", front.tokens["audit"]) as client:
            assert bundle_from_bytes(client.receipt("er-1", "north")).keys


def test_who_is_absent_is_reported(still: SitesServer) -> None:
    """An answer names each absent site with the reason; with too few sites the request fails as unavailable."""
    boundaries = {name: site.boundary for name, site in still.served.sites.items()}
    boundaries["west"].forged["/v1/predictions"] = (500, b"")
    try:
        found = still.predict().json()
        assert ([each["site"] for each in found["sites"]], found["constituents"]) == (["north", "south"], 4)
        assert found["absent"].keys() == {"west"}
        boundaries["south"].forged["/v1/predictions"] = (500, b"")
        answer = still.predict()
        assert "1 of 3 sites answer, and the quorum is 2" in error_of(answer, 503, "unavailable")["message"]
        assert int(answer.headers["retry-after"]) >= 1
    finally:
        for boundary in boundaries.values():
            boundary.forged.clear()
    assert still.predict().json()["absent"] == {}


def test_an_erasure_from_request_to_receipt(front: SitesServer) -> None:
    """A person is erased at the site that is named; both receipts are sound, and the one names the other."""
    accepted = front.erase("north", PERSON, key="er-1")
    assert accepted.status_code == 202
    assert accepted.json()["site"] == "north"
    assert accepted.headers["location"] == "/v1/erasures/er-1?site=north"
    assert front.erase("north", PERSON, key="er-1").status_code == 200
    error_of(front.erase("north", "north-secret-person-004", key="er-1"), 409, "conflict")
    while (found := front.get(accepted.headers["location"], "erase").json())["state"] != "complete":
        pass
    assert (found["site"], found["points"]) == ("north", 4)
    assert front.get("/v1/erasures/er-1").json() == found
    at_site = bundle_from_bytes(front.get("/v1/erasures/er-1/receipt").content)
    by_federation = bundle_from_bytes(front.get("/v1/erasures/er-1/receipt?site=north&by=federation").content)
    with cluster.connect(front.served.site_folders.site("north").specification) as alone:
        assert verify_bundle(at_site, alone.registrar.public_keys()).is_valid
    assert verify_bundle(by_federation, front.service.federation.registrar.public_keys()).is_valid
    assert statement_of(by_federation)["predicate"]["site"]["name"] == "north"
    error_of(front.get("/v1/erasures/er-1?site=south"), 404, "missing")
    assert next(each["generation"] for each in front.predict().json()["sites"] if each["site"] == "north") >= 2
    assert "secret" not in front.log.getvalue()


def test_a_site_has_to_be_named(still: SitesServer) -> None:
    """A person is looked for at one site and nowhere else: without one, or with a strange one, nothing is accepted."""
    assert "no site is named" in error_of(still.erase(None, PERSON), 422, "invalid")["message"]
    assert "no site 'east'" in error_of(still.erase("east", PERSON), 422, "invalid")["message"]
    assert "no site 'east'" in error_of(still.get("/v1/erasures/er-1?site=east"), 422, "invalid")["message"]
    answer = still.get("/v1/erasures/er-1/receipt?by=nobody")
    assert "'by' is site or federation" in error_of(answer, 422, "invalid")["message"]
    body = {"site": "north", "everyone": True}
    error_of(still.client.post("/v1/erasures", json=body, headers=still.headers("erase")), 422, "invalid")
    assert still.served.sites["north"].resident.state().requests == ()


def test_a_withdrawn_site_is_in_no_answer(front: SitesServer) -> None:
    """From the moment of its withdrawal a site has no part, and nothing can be erased there any more."""
    front.service.federation.withdraw("west", "the hospital leaves the study")
    found = front.predict().json()
    assert [each["site"] for each in found["sites"]] == ["north", "south"]
    assert found["absent"] == {}
    error_of(front.erase("west", "west-secret-person-003"), 409, "conflict")
    west = front.get("/v1/status").json()["sites"][2]
    assert (west["membership"], west["reason"]) == ("purged", "the hospital leaves the study")


def test_status_shows_requests_to_auditors_alone(front: SitesServer) -> None:
    """The role predict sees how each site stands; only an auditor sees requests and the places of stores."""
    front.erase("north", PERSON, key="er-1")
    full, public = front.get("/v1/status").json(), front.get("/v1/status", "predict").json()
    assert [request["request_id"] for request in full["sites"][0]["status"]["requests"]] == ["er-1"]
    assert [each["site"] for each in public["sites"]] == list(SITES)
    assert (public["store"], {each["status"]["store"] for each in public["sites"]}) == ("", {""})
    assert all(each["status"]["requests"] == [] for each in public["sites"])
    reported = [each[name] for site in public["sites"] for each in site["status"]["constituents"] for name in PER_SHARD]
    assert set(reported) == {None}
    idle = [each for site in full["sites"][1:] for each in site["status"]["constituents"]]  # north may be retraining
    assert all(each[name] for each in idle for name in PER_SHARD)


def test_commands_ask_it_too(front: SitesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --url the commands say what the federation's server says: who took part, of which site a request is."""
    pq.write_table(as_table({name: values[:40] for name, values in small_points().items()}), tmp_path / "asked.parquet")

    def said(role: Role, *words: str) -> CommandResult:
        monkeypatch.setenv("SISA_TOKEN", front.tokens[role])
        return run(*words, "--url", url, "--json")

    with listening(front.client.app) as port:
        url = f"http://127.0.0.1:{port}"
        answered = said("predict", "predict", str(tmp_path / "asked.parquet"), "--out", str(tmp_path / "out.csv")).data
        assert ([each["site"] for each in answered["sites"]], answered["absent"]) == (list(SITES), {})
        status = said("audit", "status").data
        assert [each["site"] for each in status["constituents"]] == [name for name in SITES for _ in range(2)]
        person = ("--subject", "south-secret-person-002", "--request-id", "er-url")
        assert "Add 'site'" in said("erase", "erase", *person).error["remedy"]
        assert said("erase", "erase", "--site", "south", *person, "--wait").data["state"] == "complete"
        assert said("audit", "status", "er-url", "--site", "south").data["state"] == "complete"
        assert said("audit", "receipt", "er-url").data["request_id"] == "er-url"
        refused = said("predict", "predict", "asked.csv", "--out", "out.csv", "--site", "south")
        assert (refused.code, "--site cannot be used here" in refused.error["message"]) == (2, True)


def test_health_and_description_need_no_token(still: SitesServer) -> None:
    """Whether the server can answer, and what its API is, anybody may know."""
    assert still.client.get("/healthz").json() == {"status": "ok"}
    assert set(still.client.get("/openapi.json").json()["paths"]) == set(PATHS)
    assert "default-src 'none'" in still.client.get("/docs").headers["content-security-policy"]


def test_the_table_names_every_route(still: SitesServer) -> None:
    """No route of the API is missing from the page's table, and none is in it that does not exist."""
    assert set(TABLE) == routes_of(still.client.app)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("route", TABLE, ids=" ".join)
def test_the_table_is_true(still: SitesServer, route: Route, caller: str) -> None:
    """A token opens what the page's table says; the role federate opens nothing, since a federation is not a site."""
    method, path = route
    known: dict[str, dict[str, str]] = {NO_TOKEN: {}, UNKNOWN_TOKEN: UNKNOWN}
    headers = known[caller] if caller in known else still.headers(caller)  # type: ignore[arg-type]
    answer = still.client.request(method, path.format(request_id="er-1", name="start.js"), headers=headers)
    if TABLE[route][caller] == "yes":
        assert answer.status_code not in (401, 403)
    else:
        error_of(answer, *((401, "unauthorized") if caller in known else (403, "forbidden")))


def test_a_sites_token_opens_no_federation(still: SitesServer) -> None:
    """The federation's server accepts neither the sites' tokens nor revoked ones."""
    token = still.served.sites["north"].tokens.create("predict", days=1).text
    answer = still.client.get("/v1/status", headers={"Authorization": f"Bearer {token}"})
    assert "not known" in error_of(answer, 401, "unauthorized")["message"]
    register = _register(read_sites(still.served.site_folders.config))
    own = register.create("predict", days=1)
    register.revoke(own.record.token_id)
    answer = still.client.get("/v1/status", headers={"Authorization": f"Bearer {own.text}"})
    assert "was revoked" in error_of(answer, 401, "unauthorized")["message"]


def test_before_any_site_has_joined(site_folders: SiteFolders) -> None:
    """A federation without members is not well, and answers nothing."""
    service = open_sites_service(site_folders.specification)
    client = TestClient(build_sites_app(service, LogLines("hospitals", service.clock, io.StringIO())))
    assert "no site has joined" in error_of(client.get("/healthz"), 503, "unavailable")["message"]
    service.close()


@pytest.mark.slow
@pytest.mark.volume
@pytest.mark.parametrize(("path", "mode"), cases_of(PATHS))
def test_no_request_breaks_the_server(still: SitesServer, path: str, mode: GenerationMode) -> None:
    """Requests made from the document, good and bad, with every role: answered as documented, never with a 500."""
    assert_answered(still.client.app, path, mode, [still.headers(role) for role in ROLES], most=examples(30, 12))
