"""A store in a folder: nothing of an erased person is left in any file of it, encrypted or not, finished or not."""

from __future__ import annotations

import pickle

import pytest

import cluster
from storage.encryption.store import KeyDestroyed
from storage.objects import object_key
from tests.doubles.user_folder import MARKED, MARKER, UserFolder, as_table, small_points
from tests.residue.markers import IN_MODEL, IN_REQUEST, IN_SOURCE, STORED, all_traces, laid_open, traces
from tests.residue.observations import Observation, opened

NUMBERED = ("measurements", "customer")
"""Markers of the person who has a number for a name."""


@pytest.mark.parametrize("name", [*IN_SOURCE, *IN_MODEL, *IN_REQUEST])
def test_a_value_is_there_before_and_nowhere_after(observations: dict[str, Observation], name: str) -> None:
    """What a person brought in is in the user's files, or in an object that opens; after the erasure it is in no file
    of the store and in no object. What training does not need was never there.
    """
    observation = observations["numbered" if name in NUMBERED else "named"]
    marker = observation.markers[name]
    assert bool(traces(marker, observation.before.opened)) == (name in STORED)
    assert name in STORED or traces(marker, observation.user)
    assert traces(marker, observation.after.opened) == []
    assert traces(marker, observation.after.raw) == []


def test_nothing_lies_in_the_clear(observations: dict[str, Observation]) -> None:
    """While the person is in the federation, no file of the store holds any of their values as it is."""
    for observation in observations.values():
        assert len(observation.before.raw) > 20
        assert all_traces(observation.markers, observation.before.raw) == {}


@pytest.mark.parametrize(("which", "features"), [("named", "features"), ("numbered", "measurements")])
def test_what_crosses_to_workers_holds_nobody(observations: dict[str, Observation], which: str, features: str) -> None:
    """No task, event or setup that Ray would carry, keep in memory or spill holds any value; a message that carried the
    data points would be found.
    """
    observation = observations[which]
    key = next(
        key for key in traces(observation.markers[features], observation.before.opened) if key.endswith(".parquet")
    )
    assert any(key.encode() in message for message in observation.crossed.values())
    assert all_traces(observation.markers, observation.crossed) == {}
    assert traces(observation.markers[features], {"message": pickle.dumps(observation.markers[features].value)})


def test_a_killed_writers_leftover_goes_too(home: UserFolder) -> None:
    """A writer that dies between its two system calls leaves a second name of a slice file. The erasure removes it, and
    a copy of its bytes can no longer be opened.
    """
    assert home.json("train").code == 0
    (key,) = (key for key, payload in opened(home.objects).items() if MARKER in payload and key.endswith(".parquet"))
    path = home.store / key
    left = path.with_name(f".{path.name}.0123456789abcdef.tmp")
    left.hardlink_to(path)
    kept = left.read_bytes()
    assert home.json("erase", "--subject", MARKED).data["state"] == "complete"
    assert not left.exists()
    path.write_bytes(kept)
    with pytest.raises(KeyDestroyed, match="the key of this object was destroyed"):
        home.objects.get(object_key(key))


def test_an_unfinished_write_in_the_clear_goes_too(home: UserFolder) -> None:
    """An erasure removes every leftover, even one that holds a person's values unencrypted."""
    assert home.json("train").code == 0
    left = [
        home.store / folder / f".{name}.0123456789abcdef.tmp"
        for folder in ("shards/0000/slices/0001", "shards/0002/checkpoints/0002", "requests", "manifest", "control")
        for name in ("0", "new.parquet")
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(MARKER)
    assert any(MARKER in payload for payload in home.raw().values())
    assert home.json("erase", "--subject", MARKED).data["state"] == "complete"
    assert not any(MARKER in payload for payload in home.raw().values())
    assert [path for path in left if path.exists()] == []


def test_no_name_tells_of_anybody(home: UserFolder) -> None:
    """No file in the store is called by a person's id or name, before or after."""
    assert home.json("train").code == 0
    before = set(home.raw())
    assert home.json("erase", "--subject", MARKED).data["state"] == "complete"
    for name in before | set(home.raw()):
        assert not any(word in name for word in (MARKED, "secret-", MARKER.decode()))


@pytest.mark.parametrize("name", ["answers.parquet", "answers.arrow", "answers.csv"])
def test_answers_name_those_alone_who_were_asked_for(home: UserFolder, name: str) -> None:
    """A file of answers holds no id that is only in the dictionary, or in the memory, of the table that was given."""
    table = as_table(small_points())
    ids = table["id"].combine_chunks()
    asked = table.set_column(0, "id", ids.dictionary_encode()).slice(0, 100)
    with cluster.connect(home.config) as federation:
        federation.train()
        assert federation.predict(asked).write(home.folder / name) == 100
    written = laid_open((home.folder / name).read_bytes())
    assert ids[99].as_py().encode() in written
    assert ids[100].as_py().encode() not in written
