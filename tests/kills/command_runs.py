"""What one process lives through: a command on a user's folder, with the real front door and real encryption.

Only the workers are in the command's own process, where Ray would have started others. The processes are forked from
``tests.kills.fork_server``.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import cluster
import cluster.training.workers
import cluster.writer.identity
import cluster.writer.writer
from cluster.config.specification import FederationSpecification
from cluster.writer.stores import open_objects
from coordinator.engine.history import generations
from coordinator.engine.ledger import read_state
from coordinator.engine.lookup import load_digests, load_tombstones
from coordinator.engine.sweep import left_over
from coordinator.ports import Notice, RequestMoved
from coordinator.requests import Readmission
from coordinator.state import FederationState, servable
from storage.encryption.store import SealedStore
from storage.errors import SisaError, WriterBusy
from storage.s3.client import S3Store
from tests.doubles.user_folder import UserFolder, ids_of, small_points, without
from tests.doubles.workers.local_workers import LocalWorkers
from tests.kills.fail_points import Strike, StruckStore

_PEOPLE = small_points()
_REASON = "they asked for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """Whom a request names."""

    subjects: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    include_similar: bool = False
    returns: bool = False
    """Whether they are let back, and not erased."""


REQUESTS: Mapping[str, _Names] = {
    "er-0": _Names(subjects=("secret-person-005",)),
    "er-1": _Names(subjects=("secret-person-018",)),
    "er-2": _Names(ids=(*ids_of(_PEOPLE, "secret-person-003"), *(f"nobody-{number}" for number in range(70)))),
    "er-3": _Names(subjects=("nobody-at-all",)),
    "er-4": _Names(subjects=("secret-person-004",)),
    "er-5": _Names(subjects=("Secret-Person-018", *(f"nobody-{number}" for number in range(70))), include_similar=True),
    "re-0": _Names(subjects=("secret-person-005",), returns=True),
}
"""The names of er-2 and er-5 are too many to stand in a journal's entry. The one of er-5 is somebody's in another
spelling; re-0 lets back whom er-0 has erased."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRun:
    """One process: what it does, and the blow that it meets."""

    folder: str
    command: str
    """A word of ``COMMANDS``, and what it is about: ``erase er-1``."""
    strike: Strike | None = None
    name: str = "somebody"
    """Distinguishes the answers of processes that run at the same time."""
    jump_seconds: float = 0.0
    """How far this process's own clock jumps at each look: it takes over leases without waiting."""

    def to_json(self) -> dict[str, Any]:
        """Return the life as JSON values."""
        return asdict(self)

    @property
    def answer(self) -> Path:
        """Where the process writes what it has found."""
        return Path(self.folder) / f"answer-of-{self.name}.json"

    @property
    def reported(self) -> Path:
        """The file to which the process writes, immediately and line by line, the messages for people."""
        return Path(self.folder) / "messages.txt"


def run_from_json(fields: Mapping[str, Any]) -> CommandRun:
    """Return the life that ``to_json`` wrote."""
    strike = fields["strike"]
    return CommandRun(**{**fields, "strike": None if strike is None else Strike(**strike)})


def carry_out(run_: CommandRun) -> None:
    """Do what the life is about, and write down how it ended."""
    opened: list[StruckStore] = []
    _replace_outer_world(run_, opened)
    try:
        answer = {"data": _obey(run_)}
    except SisaError as error:
        answer = {"error": {"kind": error.kind, "message": error.message, "trace": traceback.format_exc()}}
    answer |= {"steps": [kind for store in opened for kind in store.steps], "looks": sum(each.looks for each in opened)}
    run_.answer.write_text(json.dumps(answer), encoding="utf-8")


def _obey(run_: CommandRun) -> object:
    """Do what the command says; one whose clock jumps tries again until the sleeper's lease is over."""
    word, _, about = run_.command.partition(" ")
    home = UserFolder(Path(run_.folder))
    while True:
        try:
            return COMMANDS[word](home, about, partial(_tell, run_.reported))
        except WriterBusy:
            if not run_.jump_seconds:
                raise


def _replace_outer_world(run_: CommandRun, opened: list[StruckStore]) -> None:
    """Let federations of this process meet the blow; and let Ray alone."""
    ticks = count()

    def opened_struck(specification: FederationSpecification) -> SealedStore:
        inner = open_objects(specification).inner
        if isinstance(inner, S3Store) and run_.jump_seconds:
            inner = S3Store(
                inner.bucket,
                inner.prefix,
                inner.endpoint,
                monotonic=lambda: next(ticks) * run_.jump_seconds,
            )
        opened.append(StruckStore(inner, run_.strike))
        return SealedStore(opened[-1])

    patch = pytest.MonkeyPatch()  # never undone: this process is forked for one life
    patch.setattr(cluster.writer.writer, "open_objects", opened_struck)
    patch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
    patch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    # SIGKILL takes nothing away that the kernel has: here a sync costs time and saves nothing.
    patch.setattr(os, "fsync", lambda _: None)
    # The partition key that is drawn is always the same one: so bytes can be compared between folders.
    patch.setattr(cluster.writer.identity, "secrets", SimpleNamespace(token_hex=lambda length: "5a" * length))


def _tell(reported: Path, notice: Notice) -> None:
    if isinstance(notice, RequestMoved):
        line = f"{notice.request.request_id} {notice.request.state.value}\n"
        descriptor = os.open(reported, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, line.encode())
        os.close(descriptor)


# ------------------------------------------------------------------------------------------------------- commands

_Listener = Callable[[Notice], None]


def _fill(home: UserFolder, about: str, _listener: _Listener) -> None:
    """Write data and specification; ``about`` is the store's place and its server's, if it is on one."""
    store, _, endpoint = about.partition(" ")
    home.fill(partition__key=None)
    if store:
        home.specify(partition__key=None, store=store, endpoint=endpoint)


def _change(home: UserFolder, about: str, _listener: _Listener) -> None:
    """Remove three people from the source and add data points of a new person, or of the one that ``about`` names; the
    source still holds erased people.
    """
    gone = without(_PEOPLE, subjects=["secret-person-010", "secret-person-011", "secret-person-012"])
    new = {name: values[:2] for name, values in _PEOPLE.items()}
    new |= {"id": ["new-id-0", "new-id-1"], "user_id": [about or "new-person"] * 2}
    home.write("train.parquet", {name: [*values, *new[name]] for name, values in gone.items()})


def _train(home: UserFolder, _about: str, listener: _Listener) -> None:
    with cluster.connect(home.config, listener=listener) as federation:
        federation.train()


def _ask(home: UserFolder, about: str, listener: _Listener) -> str:
    with cluster.connect(home.config, listener=listener) as federation:
        return _give(federation, about)


def _recover(home: UserFolder, about: str, listener: _Listener) -> dict[str, Any]:
    """Run the next command after ``about`` was interrupted, and return what it found and how it all ended.

    A request that the store knows is not submitted again before it is done: it was acknowledged, and the next writer
    carries it out. Then it is submitted once more, and has to be the same one.
    """
    request_id = about.partition(" ")[2]
    with cluster.connect(home.config, listener=listener) as federation:
        found = _found(federation, request_id)
        if request_id and found["request"] is None:
            _give(federation, request_id)
        else:
            federation.train()
        again = _give(federation, request_id) if request_id else None
        return {"found": found, "again": again, "outcome": _outcome(federation)}


def _command(home: UserFolder, about: str, _listener: _Listener) -> dict[str, Any]:
    """Give the command as people do; return its exit code, and its error if there is one."""
    word, _, request_id = about.partition(" ")
    options = ["--request-id", request_id] if request_id else []
    if request_id:
        named = REQUESTS[request_id]
        options += [part for one in named.subjects for part in ("--subject", one)]
        options += [part for one in named.ids for part in ("--id", one)]
        options += ["--include-similar"] * named.include_similar + ["--reason", _REASON] * named.returns
    said = home.json(word, *options)
    return {"code": said.code, **({"error": said.error} if said.code else {})}


def _look(home: UserFolder, about: str, _listener: _Listener) -> dict[str, Any]:
    with cluster.connect(home.config) as federation:
        state = read_state(federation.store)
        found = _found(federation, about)
        if state is not None:
            found |= {"state": _outcome_of(federation, state), "left_over": left_over(federation.store, state)}
        return found


COMMANDS: Mapping[str, Callable[[UserFolder, str, _Listener], Any]] = {
    "fill": _fill,
    "change": _change,
    "train": _train,
    "erase": _ask,
    "readmit": _ask,
    "recover": _recover,
    "look": _look,
    "sisa": _command,
}


def _give(federation: cluster.Federation, request_id: str) -> str:
    """Give the request and have it done; return the state that it is in then."""
    names = REQUESTS[request_id]
    if names.returns:
        return _readmitted(federation.readmit(subjects=names.subjects, reason=_REASON, request_id=request_id))
    return federation.erase(
        subjects=names.subjects, ids=names.ids, request_id=request_id, include_similar=names.include_similar
    ).state


def _readmitted(readmission: Readmission) -> str:
    """Return where a readmission stands, in a word."""
    return "readmitted" if readmission.receipt is None else "stated"


# ------------------------------------------------------------------------------------------------- what is there


def _found(federation: cluster.Federation, request_id: str) -> dict[str, Any]:
    """Return what a reader without the writer lock sees: the state, and what answers."""
    state = read_state(federation.store)
    if state is None or state.data is None:
        return {"request": None, "served": [], "learned": 0}
    request, readmission = state.request(request_id), state.readmission(request_id)
    served = [each.checkpoint.digest for each in servable(state)]
    if served:
        evaluated = federation.evaluate(federation.specification.folder / "train.parquet")
        assert evaluated.generation >= state.generation >= state.floor  # a writer may have been at work in between
        assert evaluated.constituents == len(served) or evaluated.generation > state.generation
    return {
        "request": request.state.value if request else _readmitted(readmission) if readmission else None,
        "served": served,
        "learned": sum(len(shard.chain) for shard in state.shards),
    }


def _outcome(federation: cluster.Federation) -> dict[str, Any]:
    """Return everything about the end that no interruption may change; the proof is made here as well."""
    verification = federation.verify(everything=True)  # a process before may have found sound what is here now
    state = read_state(federation.store)
    assert state is not None
    return {
        "holds": verification.holds,
        "wrong": [*verification.residue.found, *verification.receipts.broken],
        "receipts": verification.receipts.checked,
        "log": federation.registrar.check_log().entries,
        "objects": _objects(federation),
        **_outcome_of(federation, state),
    }


def _outcome_of(federation: cluster.Federation, state: FederationState) -> dict[str, Any]:
    """Return what of the state no interruption may change."""
    tombstones = load_tombstones(federation.store, state.tombstone_objects())
    return {
        "digests": [[checkpoint.digest for checkpoint in shard.chain] for shard in state.shards],
        "lineages": [[checkpoint.lineage for checkpoint in shard.chain] for shard in state.shards],
        "contents": [[record.content_digest for record in shard.slices] for shard in state.shards],
        "serving": [shard.serving for shard in state.shards],
        "tombstones": [len(tombstones), tombstones.digest()],
        "missing": {
            each.request_id: len(load_digests(federation.store, each.found.missing)) for each in state.requests
        },
        "requests": [
            *([each.request_id, each.state.value, each.found.points, *each.found.shards] for each in state.requests),
            *([each.request_id, _readmitted(each), each.subjects] for each in state.readmissions),
        ],
        "generations": [each.number for each in generations(federation.store, state)]
        == list(range(1, state.generation + 1)),
        "condemned": list(state.condemned),
        "published": state.published,
    }


def _objects(federation: cluster.Federation) -> dict[str, int]:
    """Return how many objects there are in each folder that is not named by numbers."""
    counts: dict[str, int] = {}
    for info in federation.store.list(""):
        folder = info.key.rpartition("/")[0]
        counts[folder] = counts.get(folder, 0) + 1
    return dict(sorted(counts.items()))
