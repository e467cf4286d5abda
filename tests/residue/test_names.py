"""Names: what is left of people who were erased by a similar spelling or by id, and of names that nobody bears."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from coordinator.engine.ledger import read_state
from coordinator.engine.lookup import load_digests, load_tombstones
from coordinator.requests import MOST_INLINE, ObjectRef
from coordinator.state import FederationState
from shards.routing import Naming, PartitionKey, point_digest, subject_digest
from tests.doubles.user_folder import FEATURES, MARKED, MARKER, Columns, UserFolder, ids_of, small_points
from tests.residue.markers import Marker, marker_of_bytes, traces
from tests.residue.observations import opened

_KEY: Final = PartitionKey(bytes(range(16)))
_NAMING: Final = Naming(form="trimmed", by_skeleton=True)
_SPELLINGS: Final = ("Marked-Person", "marked person")
"""Other people's names than ``MARKED``, who are spelt alike."""
_IDS: Final = tuple(ids_of(small_points(), MARKED))
_FEATURES: Final = marker_of_bytes(MARKER)


def _points() -> Columns:
    """Return the small data set, in which people spelt as ``MARKED`` is have the same features."""
    columns = small_points()
    for spelling in _SPELLINGS:
        new: dict[str, object] = {f"x{n:02d}": MARKER[n] for n in range(FEATURES)}
        new |= {"id": f"id of {spelling}", "user_id": spelling, "label": "a"}
        for name, values in columns.items():
            values.append(new[name])
    return columns


def _subject(name: str) -> Marker:
    return marker_of_bytes(subject_digest(_KEY, name, _NAMING))


def _state(home: UserFolder) -> FederationState:
    state = read_state(home.objects)
    assert state is not None
    return state


def _in_the_open(home: UserFolder) -> Mapping[str, bytes]:
    """Return every file of the store, followed by its content as the holder of its keys can read it."""
    shown = opened(home.objects)
    return {path: payload + shown.get(path, b"") for path, payload in home.raw().items()}


def _tombstones(home: UserFolder) -> set[str]:
    return {ref.key for ref in _state(home).tombstone_objects()}


def test_nobody_spelt_alike_is_left(home: UserFolder) -> None:
    """Erased by one spelling, with those spelt alike: of none of them there is a feature in the store; their keyed
    digests, and those of their data points, are in the tombstones and nowhere else.
    """
    home.write("train.parquet", _points())
    assert home.json("train").code == 0
    assert len(traces(_FEATURES, opened(home.objects))) >= 1
    said = home.json("erase", "--subject", "MARKED-PERSON", "--include-similar")
    assert (said.data["state"], said.data["points"]) == ("complete", len(_IDS) + len(_SPELLINGS))
    seen = _in_the_open(home)
    assert traces(_FEATURES, seen) == []
    people = [_subject(name) for name in (MARKED, *_SPELLINGS)]
    people += [marker_of_bytes(point_digest(_KEY, each)) for each in (*_IDS, *(f"id of {each}" for each in _SPELLINGS))]
    for person in people:
        assert set(traces(person, seen)) == _tombstones(home)


def test_who_is_spelt_alike_stays_where_not_meant(home: UserFolder) -> None:
    """Without that, those spelt alike keep their data points, and none of them is in the tombstones."""
    home.write("train.parquet", _points())
    assert home.json("train").code == 0
    said = home.json("erase", "--subject", MARKED)
    assert (said.data["points"], said.data["similar"]) == (len(_IDS), {"points": 2, "subjects": 2})
    seen = _in_the_open(home)
    for spelling in _SPELLINGS:
        places = traces(_subject(spelling), seen)
        assert places
        assert all("/slices/" in place for place in places)


def test_what_was_erased_by_id_stays_out_under_another_name(home: UserFolder) -> None:
    """Erased one by one, and given to somebody else in a later source: no object holds anything of these data points
    but the tombstones.
    """
    assert home.json("train").code == 0
    options = [part for each in _IDS for part in ("--id", each)]
    assert home.json("erase", *options).data["state"] == "complete"
    columns = small_points()
    columns["user_id"] = ["somebody-else" if each == MARKED else each for each in columns["user_id"]]
    home.write("train.parquet", columns)
    assert home.json("train").code == 0
    seen = _in_the_open(home)
    assert traces(_FEATURES, seen) == []
    assert traces(_subject("somebody-else"), seen) == []
    for each in _IDS:
        assert set(traces(marker_of_bytes(point_digest(_KEY, each)), seen)) == _tombstones(home)


def test_who_comes_back_brings_nothing_erased(home: UserFolder) -> None:
    """After a readmission the tombstones of the data points are left, and the erased features stay out."""
    assert home.json("train").code == 0
    assert home.json("erase", "--subject", MARKED).data["state"] == "complete"
    assert home.json("readmit", "--subject", MARKED, "--reason", "asked").code == 0
    assert home.json("train").code == 0
    seen = _in_the_open(home)
    assert traces(_FEATURES, seen) == []
    assert traces(_subject(MARKED), seen) == []
    for each in _IDS:
        assert set(traces(marker_of_bytes(point_digest(_KEY, each)), seen)) == _tombstones(home)


def test_names_of_nobody_are_kept_by_their_request_alone(home: UserFolder, tmp_path: Path) -> None:
    """If a request names too many people without data points for the state, their digests go into one object, which the
    request refers to. It contains nobody who was erased, and these names get no tombstones.
    """
    strangers = [f"stranger-{number}" for number in range(MOST_INLINE + 6)]
    names = tmp_path / "names.txt"
    names.write_text("\n".join((MARKED, *strangers)) + "\n", encoding="utf-8")
    assert home.json("train").code == 0
    assert home.json("erase", "--file", str(names), "--request-id", "er-1").data["unknown"] == len(strangers)
    state, seen = _state(home), _in_the_open(home)
    request = state.request("er-1")
    assert request is not None
    assert isinstance(request.found.missing, ObjectRef)
    assert [key for key in seen if key.startswith("requests/")] == [request.found.missing.key]
    assert request.found.missing.key in state.referenced()
    kept = load_digests(home.objects, request.found.missing)
    assert set(kept.subject_digests()) == {subject_digest(_KEY, each, _NAMING) for each in strangers}
    assert len(kept.shared(load_tombstones(home.objects, state.tombstone_objects()))) == 0
    for each in strangers:
        assert traces(_subject(each), seen) == [request.found.missing.key]
        assert traces(marker_of_bytes(each.encode()), seen) == []


def test_who_was_never_there_leaves_nothing(home: UserFolder) -> None:
    """A request that finds nothing leaves neither name nor keyed digest, and the salt of its statement is nowhere."""
    assert home.json("train").code == 0
    said = home.json("erase", "--subject", "never-there", "--id", "no-such-id", "--request-id", "er-1")
    assert said.data["state"] == "refused"
    home.json("erase", "--subject", MARKED, "--request-id", "er-2")
    seen = _in_the_open(home)
    request = _state(home).request("er-1")
    assert request is not None
    assert traces(marker_of_bytes((request.commitment or "").encode()), seen)  # what is kept would be found
    gone = [marker_of_bytes(text.encode()) for text in ("never-there", "no-such-id", said.data["salt"])]
    gone += [marker_of_bytes(bytes.fromhex(said.data["salt"])), _subject("never-there")]
    gone += [marker_of_bytes(point_digest(_KEY, "no-such-id"))]
    assert [traces(each, seen) for each in gone] == [[]] * len(gone)
