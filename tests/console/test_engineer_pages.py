"""Federation, Try it and Evidence: what they show of a federation that has erased somebody."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

import cluster.training.workers
from cluster.config.specification import read_specification
from cluster.serving.console.streams import TOKEN_STREAMS
from cluster.tokens import TokenRegister
from cluster.writer.last_verification import VERIFICATION_KEY
from tests.console.large import SHARDS, grown
from tests.console.people import Person, person
from tests.doubles.user_folder import MARKED, UserFolder
from tests.doubles.workers.local_workers import LocalWorkers
from tests.serving.world import World, coordinator_of, open_world, rows


@pytest.fixture(scope="module")
def erased(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A federation with hold-out points that has erased two people, and is verified. No test changes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
        patch.setattr(cluster.training.workers, "join_ray", lambda _: False)
        home = UserFolder(tmp_path_factory.mktemp("erased")).fill(
            data__holdout=0.4, erasure__batch_window_seconds=0.0, erasure__alarm_margin=1e-9
        )
        resident = coordinator_of(read_specification(home.config))
        made = open_world(home, resident)
        made.erase(MARKED, "secret-person-001", key="er-1")
        made.until_idle()
        resident.verify(None)
        assert made.predict().status_code == 200  # once it has loaded the generation
        yield made
        made.service.close()
        resident.stop()


def _words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_the_federation_is_shown(erased: World) -> None:
    """The page has the numbers of the status, the grid, costs, generations and storage."""
    status = erased.get("/v1/status", "officer").json()
    page = person(erased).get("/federation").text
    words = _words(page)
    assert f"Constituents that answer {status['serving']} of {status['shards']}" in words
    assert f"Generation served {status['generation']}" in words
    assert f"Erasure floor {status['floor']}" in words
    assert "Served although tainted 0" in words
    assert page.count('class="serving"') > 1
    assert f"What they took {status['requests'][0]['spent']['point_epochs']} point-epochs" in words
    assert "never again" in words
    assert re.search(r"The store holds [0-9.]+ KiB in [0-9]+ objects", words)


def test_only_officers_see_measures_around_an_erasure(erased: World) -> None:
    """Officers see measures before and after, with the alarm; auditors read that these are not for them."""
    officer, auditor = (_words(person(erased, role).get("/federation").text) for role in ("officer", "audit"))
    assert "Alarm: " in officer
    assert "Measures by generation" in officer
    assert "Alarm: " not in auditor
    assert "balanced_accuracy" not in auditor
    assert "Measures before and after each erasure are for the role officer" in auditor


def test_a_shard_is_shown(erased: World) -> None:
    """A shard's page has its checkpoints' digests; there is a page for each shard and no other."""
    digests = erased.get("/v1/status").json()["constituents"][0]["slice_digests"]
    page = person(erased, "audit").get("/federation/shards/0").text
    assert [digest in page for digest in digests] == [True] * len(digests)
    for other in ("99", "-1", "x", "9" * 20):
        assert person(erased).get(f"/federation/shards/{other}").status_code == 404


def test_evidence_is_shown(erased: World) -> None:
    """The page has the log's checkpoint, the keys, this server's checks and the last verification."""
    checkpoint = erased.get("/v1/log/checkpoint").json()["checkpoint"]
    page = person(erased, "audit").get("/evidence").text
    words = _words(page)
    assert checkpoint.splitlines()[0] in page
    assert "Everything that was checked was in order" in words
    assert "signs now" in words
    assert "has seen exactly what its slices hold" in words
    assert "not in order" not in words


def test_no_verification_is_made_up(erased: World) -> None:
    """Where no verification is recorded, the page says how to make one."""
    kept = erased.home.objects.get(VERIFICATION_KEY)
    erased.home.objects.delete(VERIFICATION_KEY)
    try:
        assert "No verification is recorded" in person(erased).get("/evidence").text
    finally:
        erased.home.objects.put_if_absent(VERIFICATION_KEY, kept.payload)


def test_an_answer_is_tried(erased: World) -> None:
    """The form asks for each feature; the answer is that of the API, with what answered."""
    trying = person(erased, "predict")
    page = trying.get("/try").text
    assert page.count("<input id=") == len(rows(1)[0])
    answer = trying.post("/try", None, **{f"f{place}": str(value) for place, value in enumerate(rows(1)[0])})
    expected = erased.predict().json()
    assert f"The answer is <strong>{expected['predictions'][0]['prediction']}</strong>" in answer.text
    assert f"{expected['constituents']} of {expected['shards']}" in answer.text
    assert 'value="101"' in answer.text


def test_a_large_federation_makes_a_small_page(erased: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 1,000 shards and 10,000 open requests the page stays small, and describes no request that it only counts."""
    officer, state = person(erased), grown(erased.resident.state())
    described: list[str] = []
    monkeypatch.setattr("coordinator.status.describe_request", lambda request, _: described.append(request.request_id))
    monkeypatch.setattr(type(erased.service.standing), "current", lambda _: state)
    page = officer.get("/federation")
    assert page.status_code == 200
    assert len(page.content) < 200_000
    assert described == []
    assert page.text.count('href="#shape') == SHARDS
    assert page.text.count("<symbol") <= 6
    assert "143 shards that do not serve all slices; the first 50" in _words(page.text)
    assert "9,900 accepted, 100 retraining" in _words(page.text)


@pytest.mark.parametrize("text", ["", "NaN", "one", "1e999", "<script>"])
def test_what_is_no_number_is_refused_and_kept_in_the_form(erased: World, text: str) -> None:
    """The page says what is wrong, keeps what was entered, and runs none of it."""
    trying = person(erased, "predict")
    values = {f"f{place}": str(value) for place, value in enumerate(rows(1)[0])}
    answer = trying.post("/try", None, **(values | {"f3": text}))
    assert answer.status_code == 422
    assert "There is no answer" in answer.text
    assert "<script>" not in answer.text.replace("<script src=", "")


def test_a_stream_over_http_ends_with_its_token(world: World, url: str) -> None:
    """A browser's stream begins with what is shown, and ends once the token is revoked."""
    import httpx2

    who: Person = person(world, "audit")
    cookies = {"sisa_console": who.client.cookies["sisa_console"]}
    with httpx2.stream("GET", f"{url}/console/federation/live", cookies=cookies, timeout=60) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        parts = stream.iter_text()
        text = next(parts)
        while "Constituents that answer" not in text:
            text += next(parts)
        (lane,) = (page.lane for page in world.client.app.state.console if page.path == "/federation/live")  # type: ignore[attr-defined]
        assert lane._here == 1  # in a class of its own until it ends
        TokenRegister(world.home.objects, world.service.clock).revoke(world.tokens["audit"].split("_")[1])
        rest = "".join(parts)
    assert "event: over" in rest
    assert "the token was revoked" in rest


def test_one_token_cannot_take_all_live_pages(world: World, url: str) -> None:
    """Above its share a token is refused, live pages count in their own class, and the API still answers."""
    import httpx2

    cookies = {"sisa_console": person(world, "audit").client.cookies["sisa_console"]}
    with ExitStack() as opened:
        address = f"{url}/console/federation/live"
        streams = [
            opened.enter_context(httpx2.stream("GET", address, cookies=cookies, timeout=60))
            for _ in range(TOKEN_STREAMS + 1)
        ]
        assert [stream.status_code for stream in streams] == [200] * TOKEN_STREAMS + [429]
        assert httpx2.get(f"{url}/healthz", timeout=60).status_code == 200
