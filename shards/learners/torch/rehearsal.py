"""The rehearsal (E14): a model that is not reproducible is refused before it sees real data points.

Two fresh processes that are started differently train the model for a few steps on made-up data, across the end of an
epoch and a checkpoint. This happens once for each model code, settings and numerics profile, and the store keeps a
record of it. Differences that the two processes share stay undetected: the machine, the date, branches that made-up
data do not reach.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from shards.learners.torch.code_manifest import CodeManifest
from shards.learners.torch.rehearsal_process import RehearsalRequest, RehearsalResult, SliceDigests
from shards.lineage import WORKERS_HASH_SEED, Configuration
from shards.specification import is_shipped
from storage.digests import Json, Sha256, canonical_json, digest_of
from storage.errors import Corrupt, Invalid, ObjectExists, ObjectMissing, Unavailable
from storage.objects import ObjectKey, ObjectStore, object_key

_FORMAT: Final = 2
_HASH_SEEDS: Final = (WORKERS_HASH_SEED, "20260")
_SECONDS: Final = 900.0
"""Time limit of a rehearsal: a model that compiles itself takes minutes."""
_NAMED: Final = 5

_START: Final = "import sys; sys.path[:] = {path!r}; from shards.learners.torch.rehearsal_process import main; main()"

_OWN_RANDOMNESS: Final = (
    "Draw with torch, or with the module functions of random and numpy.random, which are seeded for every epoch. The"
    " model probably uses a source of randomness that is not seeded, such as numpy.random.default_rng(),"
    " random.Random(), os.urandom, the clock or threads."
)
_MODULE_STATE: Final = (
    "Keep state in a buffer (register_buffer), and draw with torch. A variable of the model's module or class probably"
    " keeps its value across checkpoints or constituents, such as a counter or a random generator at the top of the"
    " file."
)
_PROCESS: Final = (
    "Sort the names, and draw when the model is built. The model probably depends on how its process was started, such"
    " as on the order of a set of strings (the hash seed), or on random numbers drawn while its module is imported."
)
_REGISTER: Final = (
    "Register each as a buffer (register_buffer), so that checkpoints include it. Use local variables for the rest."
)


def rehearsed(
    request: RehearsalRequest, configuration: Configuration, store: ObjectStore, files: Mapping[str, Sha256]
) -> CodeManifest | None:
    """Return the code manifest of the model, as its rehearsal found it.

    The model is rehearsed unless the store has the record of a rehearsal of the same code, packages and files. This
    function writes the record and removes a damaged one. Returns None where all code comes with this system: our tests
    cover it instead. ``files`` are the digests of the declared files. Raises what ``rehearse`` raises, and
    ``Invalid`` when the model's files change in the meantime.
    """
    factory = request.model.factory
    if is_shipped(request.model, request.training):
        return None
    for info in store.list(f"{_prefix(request.inputs, configuration)}/"):
        known = _read(store, info.key)
        if known is None:
            store.delete(info.key)
        elif known == known.present(factory, files):
            return known
    tried, packages = rehearse(request)
    own = [path.partition(".")[0].partition(":")[0] for path in request.training.code.values()]
    manifest = CodeManifest.of(factory, tried, files, [*packages, *own])
    if manifest.modules != tried:
        raise Invalid(
            f"[model] factory {factory!r}: its files have changed since a worker read them",
            "Run the command again. If a coordinator was launched before, restart it.",
        )
    record: dict[str, Json] = {
        "format_version": _FORMAT,
        "configuration": configuration.record(),
        "features": request.inputs,
        "hash_seeds": list(_HASH_SEEDS),
        "workers_hash_seed": WORKERS_HASH_SEED,
        "code_manifest": manifest.record(),
    }
    with suppress(ObjectExists):  # another worker has just rehearsed it
        store.put_if_absent(rehearsal_key(request.inputs, configuration, manifest.digest()), canonical_json(record))
    return manifest


def recorded_manifest(width: int, configuration: Configuration, store: ObjectStore) -> CodeManifest | None:
    """Return the manifest that ``configuration`` names, from the record of its rehearsal for ``width`` features.

    None when ``configuration`` names no manifest, or the record is missing or damaged: then the next rehearsal writes
    it again.
    """
    if configuration.code_manifest is None:
        return None
    return _read(store, rehearsal_key(width, configuration, configuration.code_manifest))


def rehearsal_key(width: int, configuration: Configuration, manifest: Sha256) -> ObjectKey:
    """Return the key of the record, which depends on everything that decides the bits."""
    return object_key(f"{_prefix(width, configuration)}/{manifest}")


def _prefix(width: int, configuration: Configuration) -> str:
    own = replace(configuration, code_manifest=None)
    named: dict[str, Json] = {"format": _FORMAT, "configuration": own.record(), "features": width}
    return f"rehearsals/{digest_of(named)}"


def _read(store: ObjectStore, key: ObjectKey) -> CodeManifest | None:
    """Return the manifest in the record; None when the record is missing, damaged, or not what its key says."""
    try:
        found = CodeManifest.from_record(json.loads(store.get(key).payload)["code_manifest"])
        return found if key.endswith(f"/{found.digest()}") else None
    except (ObjectMissing, Corrupt, ValueError, KeyError, TypeError):
        return None


def rehearse(request: RehearsalRequest) -> tuple[dict[str, Sha256], list[str]]:
    """Return the user's modules that the model needs, with their digests, and the installed packages they import.

    Raises ``Invalid`` when the two processes produce different results or a checkpoint lacks part of the model's state,
    ``Unavailable`` when a process does not end.
    """
    ((first, second),) = run_rehearsals([request])
    compare_rehearsals(request.model.factory, first, second)
    return first.modules, sorted({*first.packages, *second.packages})


def compare_rehearsals(factory: str, first: RehearsalResult, second: RehearsalResult) -> None:
    """Raise ``Invalid`` when the results of the two processes differ."""
    if first.failure or second.failure:
        _refuse_failure(factory, first.failure, second.failure)
    if names := sorted({*first.changed, *second.changed}):
        raise Invalid(
            f"[model] factory {factory!r}: tensors in plain attributes change while the model learns: {_some(names)}",
            _REGISTER,
        )
    if names := _differing([first.modules], [second.modules]):
        raise Invalid(
            f"[model] factory {factory!r}: the model does not repeat itself: two processes loaded different modules:"
            f" {_some(names)}",
            _PROCESS,
        )
    compared = (
        (first.straight, first.again, _OWN_RANDOMNESS),
        (second.straight, second.again, _MODULE_STATE if second.again == first.straight else _OWN_RANDOMNESS),
        (first.straight, first.resumed, _MODULE_STATE),
        (second.straight, second.resumed, _MODULE_STATE),
        (first.straight, second.straight, _PROCESS),
    )
    for one, other, cause in compared:
        if names := _differing(one, other):
            raise Invalid(
                f"[model] factory {factory!r}: the model does not repeat itself: two runs that did the same differ in"
                f" {_some(names)}",
                cause,
            )


def _refuse_failure(factory: str, first: Sequence[str], second: Sequence[str]) -> None:
    kind, fact, remedy = first or second
    if bool(first) != bool(second):
        raise Invalid(
            f"[model] factory {factory!r}: the model does not repeat itself: one of two processes failed with {fact}",
            f"{_PROCESS} If that is not the cause, there is another one. {_MODULE_STATE}",
        )
    if kind:
        raise Invalid(fact, remedy)
    raise Invalid(
        f"[model] factory {factory!r}: the model fails in training on made-up data with {fact}",
        "Make the model accept features between 0 and 1, and zeros: it is tried on them before real training.",
    )


def _differing(one: Sequence[SliceDigests], other: Sequence[SliceDigests]) -> list[str]:
    """Return the names that differ after the first slice at which anything differs."""
    for mine, theirs in zip(one, other, strict=True):
        if names := sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)):
            return names
    return []


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def run_rehearsals(requests: Sequence[RehearsalRequest]) -> list[tuple[RehearsalResult, RehearsalResult]]:
    """Return the results of two fresh processes for each request.

    The second process imports other modules and trains another constituent first.

    Raises ``Unavailable`` when a process does not end.
    """
    started: list[subprocess.Popen[str]] = []
    try:
        for start, hash_seed in enumerate(_HASH_SEEDS, start=1):
            started.append(_start(hash_seed))
            _send(started[-1], [replace(request, start=start, is_second=start > 1) for request in requests])
        first, second = (_results(process, len(requests)) for process in started)
        return list(zip(first, second, strict=True))
    except subprocess.TimeoutExpired as error:
        raise Unavailable(
            f"a rehearsal of the model did not end within {_SECONDS:g} seconds", "Find out what the model waits for."
        ) from error
    finally:
        for process in started:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _start(hash_seed: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603  this interpreter, and our own code
        [sys.executable, "-c", _START.format(path=sys.path)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    )


def _send(process: subprocess.Popen[str], requests: Sequence[RehearsalRequest]) -> None:
    assert process.stdin is not None
    with suppress(OSError):  # it died, which its exit code will show
        process.stdin.write("".join(f"{request.to_json()}\n" for request in requests))
    with suppress(OSError):
        process.stdin.close()
    process.stdin = None


def _results(process: subprocess.Popen[str], count: int) -> list[RehearsalResult]:
    text, _ = process.communicate(timeout=_SECONDS)
    done = [RehearsalResult.from_json(line) for line in text.splitlines()]
    ended = RehearsalResult(failure=["", f"the end of its process, with exit code {process.returncode}", ""])
    return done + [ended] * (count - len(done))
