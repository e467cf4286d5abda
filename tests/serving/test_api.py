"""The API: predictions, erasures, receipts and status, over one replica in this process."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import cluster
from cluster.config.specification import read_specification
from cluster.release import API, SITES, own_release
from cluster.serving.intake import Lane
from coordinator.receipts.bundles import bundle_from_bytes
from deploy.views.output import ExitCode
from deploy.views.receipts import check_receipt
from shards.data.messages import ARROW_STREAM, facts_of, stream_of, table_of_stream
from tests.doubles.user_folder import FEATURES, MARKED, MARKER, UserFolder, as_table, small_points, without
from tests.serving.world import World, coordinator_of, error_of, open_world, points, rows


def test_predictions_are_those_of_the_command(still_world: World) -> None:
    """The API answers as 'sisa predict' does: same classes, same probabilities, same generation."""
    with cluster.connect(still_world.home.config) as federation:
        answers = federation.predict(as_table({name: values[:40] for name, values in small_points().items()}))
        table = answers.table()
    found = still_world.predict(points(40)).json()
    assert (found["generation"], found["constituents"], found["shards"]) == (1, 3, 3)
    assert found["classes"] == ["a", "b", "c"]
    assert [line["id"] for line in found["predictions"]] == list(range(40))
    assert [line["prediction"] for line in found["predictions"]] == table.column("prediction").to_pylist()
    expected = np.stack([table.column(f"probability_{name}") for name in "abc"], axis=1)
    np.testing.assert_array_equal(
        expected, np.array([line["probabilities"] for line in found["predictions"]], np.float32)
    )


def test_every_form_of_asking_gets_the_same_answer(still_world: World) -> None:
    """Lists, objects, columns and Arrow say the same and are answered the same, in either format."""
    names = [f"x{feature:02d}" for feature in range(FEATURES)]
    expected = still_world.predict().json()["predictions"]
    as_objects = [{"id": n, "features": dict(zip(names, values, strict=True))} for n, values in enumerate(rows())]
    assert still_world.predict({"points": as_objects}).json()["predictions"] == expected
    columns = {"id": [0, 1, 2], **{name: [values[n] for values in rows()] for n, name in enumerate(names)}}
    assert still_world.predict({"columns": columns}).json()["predictions"] == expected
    headers = still_world.headers("predict", Content_Type=ARROW_STREAM)
    answer = still_world.client.post("/v1/predictions", content=stream_of(pa.table(columns)), headers=headers)
    assert answer.headers["content-type"] == ARROW_STREAM
    table = table_of_stream(answer.content, 10)
    assert facts_of(table) == {"generation": 1, "constituents": 3, "shards": 3}
    assert table.column("id").to_pylist() == [0, 1, 2]
    assert table.column("prediction").to_pylist() == [line["prediction"] for line in expected]
    headers |= {"Accept": "application/json"}
    answer = still_world.client.post("/v1/predictions", content=stream_of(pa.table(columns)), headers=headers)
    assert answer.json()["predictions"] == expected
    assert still_world.predict(Accept=ARROW_STREAM).headers["content-type"] == ARROW_STREAM


def test_predictions_pass_around_the_framework(still_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its layers and routing answer everything else; a prediction is recorded without them, under its route."""

    async def broken(*_: object) -> None:
        raise RuntimeError("the framework was asked")

    counted, entered = list[str](), Lane.entered

    def counting(lane: Lane) -> AbstractContextManager[None]:
        counted.append(lane._name)
        return entered(lane)

    monkeypatch.setattr(Lane, "entered", counting)
    monkeypatch.setattr(still_world.client.app, "middleware_stack", broken)
    assert still_world.predict().status_code == 200
    assert still_world.client.get("/healthz").status_code == 500
    line = still_world.lines()[-1]
    assert (line["route"], line["status"], line["points"]) == ("/v1/predictions", 200, 3)
    assert counted == ["predictions"]


def test_no_data_point_is_no_error(still_world: World) -> None:
    """A request without data points gets an answer without any, in both formats; the same holds for ids."""
    assert still_world.predict({"points": []}).json()["predictions"] == []
    table = pa.table({f"x{feature:02d}": pa.array([], pa.uint8()) for feature in range(FEATURES)})
    headers = still_world.headers("predict", Content_Type=ARROW_STREAM)
    answer = still_world.client.post("/v1/predictions", content=stream_of(table), headers=headers)
    assert table_of_stream(answer.content, 10).num_rows == 0
    found = still_world.predict({"points": [{"features": rows(1)[0]}]}).json()["predictions"]
    assert [line.keys() for line in found] == [{"prediction", "probabilities"}]


def test_an_erasure_from_request_to_receipt(world: World, tmp_path: Path) -> None:
    """A request is accepted with its own address, the same again is the same, and its receipt can be verified."""
    accepted = world.erase(MARKED, key="er-1")
    assert accepted.status_code == 202
    assert accepted.headers["location"] == "/v1/erasures/er-1"
    assert accepted.json()["request_id"] == "er-1"
    assert world.erase(MARKED, key="er-1").status_code == 200
    error_of(world.erase("secret-person-001", key="er-1"), 409, "conflict")
    world.until_idle()
    found = world.get("/v1/erasures/er-1", "erase").json()
    assert (found["state"], found["points"]) == ("complete", 4)
    receipt = world.get("/v1/erasures/er-1/receipt")
    assert bundle_from_bytes(receipt.content).index == 0
    (tmp_path / "receipt.json").write_bytes(receipt.content)
    assert check_receipt(tmp_path / "receipt.json").code is ExitCode.UNTRUSTED
    (tmp_path / "operator.keys").write_text(world.get("/v1/keys").text, encoding="utf-8")
    assert check_receipt(tmp_path / "receipt.json", [tmp_path / "operator.keys"]).problem is None
    assert world.resident.verify(None).holds


def test_only_officers_see_how_erased_people_were_recognised(home: UserFolder) -> None:
    """Measures before and after a request are for officers alone; a generation's is not for callers from outside."""
    home.specify(data__holdout=0.4, erasure__batch_window_seconds=0.0, erasure__alarm_margin=1e-9)
    resident = coordinator_of(read_specification(home.config))
    world = open_world(home, resident)
    try:
        world.erase(MARKED, "secret-person-001", key="er-1")
        world.until_idle()
        state = resident.state()
        assert state is not None
        assert state.is_measured
        assert [each.effect is not None for each in state.requests] == [True]
        for role in ("audit", "officer", "federate"):
            status = world.get("/v1/status", role).json()
            seen = [(each["effect"] is not None, bool(each["alarms"])) for each in status["requests"]]
            assert seen == ([(True, True)] if role == "officer" else [(False, False)])
            assert (status["measure"] is None) == (role == "federate")
        assert world.get("/v1/status", "predict").json()["measure"] is None
        assert world.get("/v1/erasures/er-1").json()["effect"] is None
    finally:
        world.service.close()
        resident.stop()


def test_a_request_without_an_id_gets_one(world: World) -> None:
    """Where the caller gives no id one is drawn, and the answer's address leads to it; held ones wait."""
    answer = world.client.post(
        "/v1/erasures", json={"ids": ["secret-id-0001"], "hold": "legal hold 17"}, headers=world.headers("erase")
    )
    assert answer.status_code == 202
    found = world.get(answer.headers["location"]).json()
    assert found["request_id"] == answer.json()["request_id"]
    assert (found["state"], found["held"]) == ("waiting", "legal hold 17")
    error_of(world.get(f"{answer.headers['location']}/receipt"), 404, "missing")


def test_nothing_is_accepted_without_a_coordinator(world: World) -> None:
    """Where none is at work, a request is refused for now, with the command that launches one."""
    world.coordinator.clear()
    answer = world.erase(MARKED)
    assert "sisa launch" in error_of(answer, 503, "unavailable")["remedy"]
    assert int(answer.headers["retry-after"]) >= 1


def test_the_erased_are_forgotten_by_the_next_answer(world: World) -> None:
    """Once a request is in quarantine no answer comes from an older generation; the retrained one takes over."""
    assert world.predict().json()["generation"] == 1
    world.erase(MARKED, key="er-1")
    seen = []
    while (found := world.get("/v1/erasures/er-1")).json().get("state", found.text) != "complete":
        assert found.status_code == 200, found.text
        floor = world.get("/v1/status").json()["floor"]
        found = world.predict()
        assert found.status_code == 200
        assert found.json()["generation"] >= floor
        seen.append(found.json()["generation"])
    assert seen == sorted(seen)
    while (last := world.predict().json()["generation"]) < 3:
        assert last == 2
    state = world.resident.state()
    assert (state.generation, state.floor) == (3, 2)


def test_answers_are_those_of_a_federation_that_never_saw_them(world: World, tmp_path: Path) -> None:
    """After an erasure the API answers as one whose data never held the erased person."""
    world.erase(MARKED)
    world.until_idle()
    while world.predict().json()["generation"] < 3:
        pass
    home = type(world.home)(tmp_path / "other")
    home.folder.mkdir()
    home.fill(without(small_points(), subjects=[MARKED]))
    with cluster.connect(home.config) as fresh:
        fresh.train()
        expected = fresh.predict(as_table({name: values[:3] for name, values in small_points().items()})).table()
    found = world.predict().json()["predictions"]
    assert [line["probabilities"][0] for line in found] == expected.column("probability_a").to_pylist()


def test_status_shows_requests_to_auditors_alone(world: World) -> None:
    """The role predict sees generation, floor and constituents; only an auditor sees requests and the store's place."""
    world.erase(MARKED, key="er-1")
    full, public = world.get("/v1/status").json(), world.get("/v1/status", "predict").json()
    assert [request["request_id"] for request in full["requests"]] == ["er-1"]
    assert (public["requests"], public["store"], public["forgotten"], public["similar_subjects"]) == ([], "", [], None)
    assert {"generation", "floor", "serving", "constituents"} <= public.keys()


def test_status_shows_shards_to_nobody_who_only_predicts(world: World) -> None:
    """Points and digests of single shards, which tell where somebody was erased, are null to the role predict."""
    full, public = world.get("/v1/status").json(), world.get("/v1/status", "predict").json()
    digests = {digest for each in full["constituents"] for digest in (each["digest"], *each["slice_digests"])}
    assert len(digests) >= 3
    assert [digest for digest in digests if digest in json.dumps(public)] == []
    withheld = dict.fromkeys(("points", "digest", "slice_digests"))
    assert public["constituents"] == [each | withheld for each in full["constituents"]]
    assert public["points"] == sum(each["points"] for each in full["constituents"])
    for role in ("officer", "federate"):
        assert world.get("/v1/status", role).json() == full
    shape = world.client.get("/openapi.json").json()["components"]["schemas"]["ConstituentStatus"]["properties"]
    assert [{"type": "null"} in shape[name]["anyOf"] for name in withheld] == [True] * 3


def test_health_and_description_need_no_token(still_world: World) -> None:
    """Whether the replica can answer, and what the API is, anybody may know."""
    while still_world.client.get("/healthz").status_code != 200:
        pass
    assert still_world.client.get("/healthz").json() == {"status": "ok"}
    document = still_world.client.get("/openapi.json").json()
    assert document["paths"].keys() == {
        "/v1/predictions",
        "/v1/erasures",
        "/v1/erasures/{request_id}",
        "/v1/erasures/{request_id}/receipt",
        *(f"/v1/erasures/{{request_id}}/{change}" for change in ("hold", "release", "extend", "cancel")),
        *(f"/v1/subjects:{asked}" for asked in ("lookup", "trace", "readmit")),
        "/v1/status",
        "/v1/standing",
        "/v1/measure",
        "/v1/log/checkpoint",
        "/v1/keys",
        "/v1/checkpoints/{shard}/{sha256}",
        "/healthz",
    }
    assert still_world.client.get("/docs").status_code == 200


@pytest.mark.parametrize("given", ["", "caller-7", "of\tno kind", "x" * 300])
def test_answers_carry_a_request_id(still_world: World, given: str) -> None:
    """The caller's id is kept where it is one, else another is drawn; the log has the same."""
    answer = still_world.client.get("/healthz", headers={"X-Request-Id": given} if given else {})
    found = answer.headers["x-request-id"]
    assert (found == given) == (given == "caller-7")
    assert still_world.lines()[-1]["http_request_id"] == found
    assert answer.headers["cache-control"] == "no-store"


def test_answers_say_which_release_they_are_of(still_world: World) -> None:
    """All answers name the API versions; only answers to callers with a token name the release."""
    client, headers = still_world.client, still_world.headers("audit")
    admitted = [client.get(path, headers=headers) for path in ("/v1/status", "/v1/erasures/er-9")]
    assert [answer.status_code for answer in admitted] == [200, 404]
    assert {answer.headers["sisa-release"] for answer in admitted} == {own_release()}
    others = [client.get(path) for path in ("/v1/status", "/healthz", "/docs", "/nowhere")]
    assert [answer.status_code for answer in others] == [401, 200, 200, 404]
    assert {answer.headers["sisa-release"] for answer in others} == {f"+api{API}.sites{SITES}"}


def test_the_log_says_nothing_of_people(world: World) -> None:
    """A line says who asked, how often and how it went; no token, name, feature or path is in it."""
    world.predict({"points": [{"id": "secret-id-0007", "features": list(MARKER)}]})
    world.predict({"points": [{"id": "secret-id-0007", "features": ["secret-person-001"]}]})
    world.erase(MARKED, key="er-1")
    world.get("/v1/erasures/secret-person-002")
    world.client.get("/secret-person-003", headers={"Authorization": "Bearer sisa_secret"})
    log = world.log.getvalue()
    assert len(world.lines()) == 5
    for secret in ("secret", MARKED, MARKER.decode(), *world.tokens.values()):
        assert secret not in log
    assert {line["event"] for line in world.lines()} == {"http_request"}
    first = world.lines()[0]
    assert (first["route"], first["status"], first["points"], first["role"]) == ("/v1/predictions", 200, 1, "predict")
    assert json.loads(json.dumps(first)) == first
