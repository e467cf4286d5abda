"""Names at the engine: similar ones, unknown ones, tombstones by id and in segments, those who come back (E12, E15)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.decisions.decide import outstanding
from coordinator.decisions.events import Event, IssueReceipt
from coordinator.engine.engine import Engine
from coordinator.engine.history import TOGETHER, generations
from coordinator.engine.lookup import load_digests, load_tombstones
from coordinator.engine.removal import Demand, find_points, with_tombstones
from coordinator.ports import Notice
from coordinator.receipts.bundles import ReceiptBundle, statement_of
from coordinator.receipts.issuer import Registrar
from coordinator.receipts.kinds import NOTHING_FOUND_TYPE, READMISSION_TYPE
from coordinator.receipts.openings import commitment
from coordinator.requests import ErasureRequest, Readmission, RequestState, Segment, Similar
from coordinator.verification import scan_residue
from shards.routing import PointDigest, point_digest, subject_digest
from shards.tombstones import DigestSet
from storage.digests import sha256
from storage.errors import Conflict, Invalid, Unavailable
from storage.stores.memory import MemoryStore
from tests.doubles.federation import (
    KEY,
    NAMING,
    Point,
    SmallFederation,
    names_of,
    plain_conditions,
    specification_of,
)
from tests.doubles.time_and_names import CountingNames
from tests.doubles.workers.fake_learner import HashLearner, HashState

_STORES = count()
_SPECIFICATION = specification_of(shards=2, slices=3)
AT = "2026-02-01T00:00:00.000+00:00"


def points_of(*subjects: str, prefix: str = "p") -> list[Point]:
    """Return a data point for each of the names."""
    return [
        Point(id=f"{prefix}{n}", subject=subject, label="ab"[n % 2], features=(float(n), 1.0))
        for n, subject in enumerate(subjects)
    ]


MIAS = points_of("Mia", "Mia", "Mia ", "mia", "M.I.A.", "noah", "zoe", "liam", "emma")


def federation_of(points: list[Point]) -> SmallFederation[HashState]:
    """Return a federation trained on the points."""
    made: SmallFederation[HashState] = SmallFederation(
        specification=_SPECIFICATION,
        store=MemoryStore(f"names-{next(_STORES)}"),
        learners=lambda _: HashLearner(slices=3),
        conditions=lambda _: plain_conditions(_SPECIFICATION),
    )
    made.train(points)
    return made


@pytest.fixture
def federation() -> SmallFederation[HashState]:
    """A federation with several spellings of Mia."""
    return federation_of(MIAS)


def accept(
    federation: SmallFederation[HashState],
    request_id: str,
    *,
    subjects: Iterable[str] = (),
    ids: Iterable[str] = (),
    include_similar: bool = False,
) -> ErasureRequest:
    """Accept a request as the front door drafts it."""
    subjects, ids = list(subjects), list(ids)
    names = names_of(subjects, ids)
    plain = ErasureRequest(
        request_id=request_id,
        body=names.digest(),
        names=None,
        subjects=len(names.subjects) // 16,
        ids=len(names.points) // 16,
        received_at=AT,
        due_at=AT,
        include_similar=include_similar,
        commitment=commitment("salt", subjects=subjects, ids=ids),
    )
    return federation.engine.accept(plain, names)


def left(federation: SmallFederation[HashState]) -> int:
    """Return how many data points there are."""
    return sum(shard.points for shard in federation.state.shards)


def ended(federation: SmallFederation[HashState], request_id: str) -> ErasureRequest:
    """Return the request once all is done."""
    federation.engine.settle()
    found = federation.state.request(request_id)
    assert found is not None
    return found


def test_who_is_spelt_alike_stays_and_is_counted(federation: SmallFederation[HashState]) -> None:
    """Erasing one spelling erases those that the form unites; the others stay, and the request counts them."""
    accept(federation, "er-1", subjects=["Mia"])
    request = ended(federation, "er-1")
    assert (request.found.points, request.found.unknown, request.found.similar) == (3, 0, Similar(points=2, subjects=2))
    assert left(federation) == 6


def test_all_spellings_go_where_that_is_asked_for(federation: SmallFederation[HashState]) -> None:
    """With ``include_similar`` all go, whichever spelling was named, and none of them comes back."""
    accept(federation, "er-1", subjects=["MIA"], include_similar=True)
    request = ended(federation, "er-1")
    assert (request.state, request.found.points, request.found.unknown) == (RequestState.COMPLETE, 5, 0)
    assert request.found.similar == Similar()
    federation.train([*MIAS, *points_of("MIA", "Mia", "mia", "M.I.A.", prefix="later-")])
    assert left(federation) == 4
    assert federation.state.data is not None
    assert federation.state.data.refused == 9


def test_spelt_alike_is_not_unknown(federation: SmallFederation[HashState]) -> None:
    """A name with only similar subjects is unknown, and the refusal says that there are similar ones."""
    accept(federation, "er-1", subjects=["mIa"])
    request = ended(federation, "er-1")
    assert (request.state, request.found.unknown, request.found.similar) == (
        RequestState.REFUSED,
        1,
        Similar(points=5, subjects=3),
    )


def test_unknown_names_are_kept_as_digests(federation: SmallFederation[HashState]) -> None:
    """A repeated request returns which names were unknown; a few are kept in the state, many in an object."""
    for request_id, strangers in (("few", 3), ("many", 70)):
        names = [f"stranger-{n}" for n in range(strangers)]
        accept(federation, request_id, subjects=[*names, {"few": "noah", "many": "zoe"}[request_id]])
        request = ended(federation, request_id)
        assert (request.found.points, request.found.unknown) == (1, strangers)
        assert load_digests(federation.store, request.found.missing) == names_of(names, [])
    assert scan_residue(federation.store, federation.state).found == ()


def test_what_was_erased_stays_out_under_another_name(federation: SmallFederation[HashState]) -> None:
    """Two accounts are merged in the source: the erased data points of one do not come back as the other's."""
    accept(federation, "er-1", subjects=["noah"])
    ended(federation, "er-1")
    merged = [replace(point, subject="zoe") if point.subject == "noah" else point for point in MIAS]
    federation.train(merged)
    assert federation.state.data is not None
    assert (federation.state.data.refused, federation.state.data.by_id) == (1, 1)
    assert left(federation) == 8
    assert scan_residue(federation.store, federation.state).found == ()


def test_a_source_that_is_spelt_like_an_erased_person_is_reported(federation: SmallFederation[HashState]) -> None:
    """New data points of another spelling come in, and their number is on record."""
    accept(federation, "er-1", subjects=["noah"])
    ended(federation, "er-1")
    federation.train([*MIAS, *points_of("NOAH", "Noah", "ben", prefix="later-")])
    assert federation.state.data is not None
    assert federation.state.data.respelt == 2


def test_somebody_comes_back(federation: SmallFederation[HashState]) -> None:
    """After a readmission new data points are accepted; erased ones stay out by id; other subjects stay erased."""
    accept(federation, "er-1", subjects=["noah"])
    accept(federation, "er-2", subjects=["zoe"])
    federation.engine.settle()
    back = _readmission("back-1", ["noah", "nobody"])
    first = federation.engine.readmit(*back)
    assert (first.subjects, federation.engine.readmit(*back)) == (1, first)
    federation.engine.settle()
    federation.train([*MIAS, *points_of("noah", "zoe", prefix="later-")])
    assert left(federation) == 8
    assert federation.state.data is not None
    assert (federation.state.data.refused, federation.state.data.by_id) == (3, 1)
    bundle = Registrar(federation.store, federation.clock, federation.names).find("back-1")
    statement = statement_of(bundle)
    assert statement["predicateType"] == READMISSION_TYPE
    assert statement["predicate"]["reason"] == "a new contract"
    accept(federation, "er-3", subjects=["noah"])
    assert ended(federation, "er-3").found.points == 1
    federation.train([*MIAS, *points_of("noah", "zoe", prefix="later-"), *points_of("noah", prefix="again-")])
    assert left(federation) == 7


def _readmission(request_id: str, subjects: list[str]) -> tuple[Readmission, DigestSet]:
    names = names_of(subjects, [])
    return Readmission(
        request_id=request_id, body=names.digest(), subjects=len(subjects), reason="a new contract", at=AT
    ), names


def test_an_id_stands_for_one_demand(federation: SmallFederation[HashState]) -> None:
    """Erasures and readmissions share no ids; the same id with another body is a conflict (D4)."""
    accept(federation, "er-1", subjects=["noah"])
    ended(federation, "er-1")
    with pytest.raises(Conflict, match="used before"):
        federation.engine.readmit(*_readmission("er-1", ["noah"]))
    federation.engine.readmit(*_readmission("back-1", ["noah"]))
    with pytest.raises(Conflict, match="used before"):
        federation.engine.readmit(*_readmission("back-1", ["zoe"]))
    with pytest.raises(Conflict, match="used before"):
        accept(federation, "back-1", subjects=["zoe"])


def test_the_first_of_two_demands_has_the_id(
    federation: SmallFederation[HashState], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An erasure and a readmission that arrive at once under one id: the first is durable, the second a conflict."""
    accept(federation, "er-1", subjects=["noah"])
    ended(federation, "er-1")
    engine, record = federation.engine, Engine.record

    def overtaken(first: Callable[[], object]) -> None:
        """Have ``first`` done while another demand is about to be recorded."""
        waiting = [first]

        def late(self: Engine, *events: Event, notice: Notice | None = None) -> None:
            if waiting:
                waiting.pop()()
            record(self, *events, notice=notice)

        monkeypatch.setattr(Engine, "record", late)

    overtaken(lambda: engine.readmit(*_readmission("id-1", ["noah"])))
    with pytest.raises(Conflict, match="used before"):
        accept(federation, "id-1", subjects=["zoe"])
    assert (engine.state.request("id-1"), engine.state.readmission("id-1") is not None) == (None, True)
    accept(federation, "er-2", subjects=["emma"])
    ended(federation, "er-2")
    overtaken(lambda: accept(federation, "id-2", subjects=["zoe"]))
    with pytest.raises(Conflict, match="used before"):
        engine.readmit(*_readmission("id-2", ["emma"]))
    assert (engine.state.request("id-2") is not None, engine.state.readmission("id-2")) == (True, None)
    assert ended(federation, "id-2").found.points == 1


def test_nobody_comes_back_who_was_not_erased(federation: SmallFederation[HashState]) -> None:
    """A readmission of subjects that are not erased is refused with the reason."""
    with pytest.raises(Invalid, match="none of these subjects was erased here"):
        federation.engine.readmit(*_readmission("back-1", ["noah"]))
    assert federation.state.readmissions == ()


def test_nothing_found_is_stated(federation: SmallFederation[HashState]) -> None:
    """A request that finds nothing ends with a signed statement whose digest only the salt and the names give."""
    accept(federation, "er-1", subjects=["nobody"])
    request = ended(federation, "er-1")
    assert (request.state, request.receipt) == (RequestState.REFUSED, 0)
    registrar = Registrar(federation.store, federation.clock, federation.names)
    statement = statement_of(registrar.find("er-1"))
    stated = statement["predicate"]["request"]
    assert statement["predicateType"] == NOTHING_FOUND_TYPE
    assert stated["digest"] == commitment("salt", subjects=["nobody"])
    assert stated["digest"] not in {commitment("other", subjects=["nobody"]), commitment("salt", subjects=["nobod"])}
    assert (stated["subjects"], stated["ids"], stated["unknown"]) == (1, 0, 1)
    assert statement["predicate"]["searched"]["points"] == 9
    assert registrar.check_all(["er-1"]).broken == ()


def test_what_is_not_yet_purged_is_stated(federation: SmallFederation[HashState]) -> None:
    """A refusal about a person whose data points were just taken out does not say that none is left in the store."""
    for request_id, subject in (("er-1", "noah"), ("er-2", "noah"), ("er-3", "zoe")):
        accept(federation, request_id, subjects=[subject])
    assert ended(federation, "er-2").state is RequestState.REFUSED
    accept(federation, "er-4", subjects=["noah"])
    assert ended(federation, "er-4").state is RequestState.REFUSED
    registrar = Registrar(federation.store, federation.clock, federation.names)
    stated = {each: statement_of(registrar.find(each))["predicate"] for each in ("er-2", "er-4")}
    assert [stated[each]["searched"]["being_erased"] for each in ("er-2", "er-4")] == [2, 0]
    assert "lies in the store, unused" in stated["er-2"]["does_not_prove"]
    assert "had been learned" not in stated["er-4"]["proves"], "noah had been"


def test_the_log_learns_nobody(federation: SmallFederation[HashState]) -> None:
    """Neither the name nor a digest that the partition key could test is in what lasts for ever."""
    accept(federation, "er-1", subjects=["nobody"])
    ended(federation, "er-1")
    digest = subject_digest(KEY, "nobody", NAMING)
    secrets = (b"nobody", digest, digest.hex().encode(), names_of(["nobody"], []).digest().encode())
    for info in federation.store.list(""):
        if info.key.startswith(("log/", "receipts/")):
            payload = federation.store.get(info.key).payload
            assert [secret for secret in secrets if secret in payload] == [], info.key


def test_a_statement_is_owed_until_it_is_signed(federation: SmallFederation[HashState]) -> None:
    """A crash between refusal and statement leaves it owed; a request of 0.1, without a commitment, owes none."""
    accept(federation, "er-1", subjects=["nobody"])
    federation.engine.remove_points()
    assert IssueReceipt(request_id="er-1") in outstanding(federation.state)
    plain = tuple(replace(each, commitment=None) for each in federation.state.requests)
    assert outstanding(replace(federation.state, requests=plain)) == ()
    federation.restart()
    assert ended(federation, "er-1").receipt == 0


def test_erasures_do_not_wait_for_a_statement(
    federation: SmallFederation[HashState], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If nothing can be signed, retraining and purging continue; the statements are signed later."""

    def without_keys(_self: Registrar, _evidence: object) -> tuple[ReceiptBundle, ...]:
        raise Unavailable("the private keys are not in their place")

    accept(federation, "er-1", subjects=["nobody"])
    accept(federation, "er-2", subjects=["noah"])
    with monkeypatch.context() as patch:
        patch.setattr(Registrar, "issue_all", without_keys)
        with pytest.raises(Unavailable, match="not in their place"):
            federation.engine.settle()
    assert [each.state for each in federation.state.requests] == [RequestState.REFUSED, RequestState.PURGED]
    assert not federation.state.untrained()
    assert scan_residue(federation.store, federation.state).found == ()
    assert ended(federation, "er-2").state is RequestState.COMPLETE
    assert [each.receipt for each in federation.state.requests] == [0, 1]


@settings(max_examples=60)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=25))
def test_segments_hold_all_and_are_few(sizes: list[int]) -> None:
    """All tombstones are kept, in about as many segments as their number has doublings."""
    store, names = MemoryStore(f"segments-{next(_STORES)}"), CountingNames()
    segments: tuple[Segment, ...] = ()
    every, written, start = DigestSet(), 0, 0
    for size in sizes:
        new = DigestSet.of(points=[PointDigest(point_digest(KEY, str(start + n))) for n in range(size)])
        start += size
        segments = with_tombstones(store, names, segments, new)
        every = every.union(new)
        written += segments[-1].digests
    assert load_tombstones(store, [segment.ref for segment in segments]) == every
    assert sum(segment.digests for segment in segments) == start
    assert len(segments) <= start.bit_length() + 1
    assert written <= start * (start.bit_length() + 1)
    store.forget()


def test_an_erasure_does_not_rewrite_what_is_large(federation: SmallFederation[HashState]) -> None:
    """A large segment stays the object that it is when one more person is erased."""
    many = DigestSet.of(points=[PointDigest(sha256(str(n).encode()).encode()[:16]) for n in range(5_000)])
    large = with_tombstones(federation.store, federation.names, (), many)
    accept(federation, "er-1", subjects=["noah"])
    few = with_tombstones(federation.store, federation.names, large, names_of(["noah"], ["p5"]))
    assert few[0] == large[0]
    assert [segment.digests for segment in few] == [5_000, 2]


def test_every_generation_is_on_record(federation: SmallFederation[HashState]) -> None:
    """Each generation has its number, its times and the slices it served; the last one is served still."""
    accept(federation, "er-1", subjects=["noah"])
    ended(federation, "er-1")
    found = list(generations(federation.store, federation.state))
    assert [each.number for each in found] == list(range(1, federation.state.generation + 1))
    assert [each.until for each in found[:-1]] == [each.since for each in found[1:]]
    assert found[-1].until == ""
    assert found[0].serving == found[-1].serving == (3, 3)
    assert min(found[1].serving) < 3


def test_old_generations_leave_the_state(federation: SmallFederation[HashState]) -> None:
    """However many there were, the state names a few; all are found, in order, once each."""
    for number in range(TOGETHER + 10):
        federation.train(MIAS if number % 2 else MIAS[:-1])
    assert federation.state.generation > 2 * TOGETHER
    assert len(federation.state.history) < 2 * TOGETHER
    found = list(generations(federation.store, federation.state))
    assert [each.number for each in found] == list(range(1, federation.state.generation + 1))
    federation.restart()
    assert list(generations(federation.store, federation.state)) == found
    assert scan_residue(federation.store, federation.state).found == ()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_erasing_one_spelling_erases_all_that_the_form_unites(data: st.DataObject) -> None:
    """For random names and chains of respellings: united ones are all gone, and of the others the request tells."""
    name = data.draw(st.text(st.characters(codec="ascii", categories=["L"]), min_size=3, max_size=6))
    changes = st.sampled_from([" {}", "{}\u200b", "\u00a0{}\t"])
    united = [data.draw(changes).format(name) for _ in range(3)]
    apart = {name.swapcase(), f"{name}.", f"{name[0]} {name[1:]}"} - {name}
    federation = federation_of([*points_of(*united, *sorted(apart)), *points_of("somebody else", prefix="q")])
    accept(federation, "er-1", subjects=[data.draw(st.sampled_from([name, *united]))])
    request = ended(federation, "er-1")
    assert (request.found.points, request.found.similar) == (3, Similar(points=len(apart), subjects=len(apart)))
    found = find_points(federation.store, federation.state, [Demand(names=names_of([name], []))])[0]
    assert found.removed == {}
