"""Log lines: what a coordinator or a server did, one JSON object per line, without personal data.

Logs outlive every erasure, and nobody purges them. So a line holds only fields from a fixed list, each of which is a
number, a time or a word of this system; it names a request by its id, which must not be a person's name. Two things are
left out: remarks, and the texts of errors that may quote data (``Invalid``, ``Corrupt``, errors in a model's own code).
Callers see those, and the store keeps them with the request.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock
from typing import Final, TextIO

from coordinator.ports import Clock, Notice, RequestMoved, TrainingStarted
from coordinator.requests import ErasureRequest, RequestState
from shards.learners.trainer import SliceLearned
from storage.errors import Fenced, InvariantBroken, OutcomeUnknown, SisaError, Unavailable

FIELDS: Final = frozenset(
    {
        *("at", "event", "federation", "request_id", "request_ids", "more_requests", "state", "due_at", "held"),
        *("shard", "shards", "slice", "slices", "points", "seconds", "receipt", "generation", "names"),
        *("kind", "fact", "role", "token_id", "method", "route", "status", "http_request_id"),
    }
)
"""Every field that a line may have. A new field must not be able to hold personal data."""

MOST_REQUESTS: Final = 20
"""Most request ids in one line; the line only counts the others."""

_IN_WORK: Final = frozenset({RequestState.QUARANTINED, RequestState.RETRAINING})

_SYSTEM: Final = (Fenced, OutcomeUnknown, Unavailable)
"""Errors about stores, locks and clusters, which never quote data."""

_COMPACT: Final = json.JSONEncoder(separators=(",", ":"))

Value = str | int | float | bool | Sequence[str] | Sequence[int]


class LogLines:
    """Writes the lines of one federation, from any thread. A broken stream stops no work."""

    def __init__(self, federation: str, clock: Clock, stream: TextIO) -> None:
        self._federation = federation
        self._clock = clock
        self._stream = stream
        self._lock = Lock()  # also for the stream, so that lines stay whole
        self._in_work: dict[str, None] = {}  # under ``_lock``

    def write(self, event: str, **fields: Value) -> None:
        """Write a line. Raises ``InvariantBroken`` for a field that is not on the list."""
        if strange := fields.keys() - FIELDS:
            raise InvariantBroken("a log line has a field that is not on the list", field=min(strange))
        at = self._clock.now().isoformat(timespec="milliseconds")
        line = _COMPACT.encode({"at": at, "event": event, "federation": self._federation, **fields})
        with self._lock, suppress(OSError, ValueError):  # a full disk, a stream that was closed
            self._stream.write(line + "\n")
            self._stream.flush()

    def hear(self, notice: Notice) -> None:
        """Write a line for a notice that is worth logging. Implements ``coordinator.ports.Listener``."""
        match notice:
            case RequestMoved(request=request):
                self._moved(request)
            case TrainingStarted(shards=shards, slices=slices):
                self.write("training", shards=[number for number, _ in shards], slices=slices, **self._requests())
            case SliceLearned(shard=shard, slice=slice_, checkpoint=checkpoint) if checkpoint is not None:
                seconds = round(checkpoint.seconds, 3)
                self.write("slice_learned", shard=shard, slice=slice_, seconds=seconds, **self._requests())
            case _:
                pass

    def trouble(self, error: SisaError) -> None:
        """Write that something keeps the work from going on."""
        fact = {"fact": error.fact} if isinstance(error, _SYSTEM) else {}
        self.write("trouble", kind=error.kind, **fact, **self._requests())

    def _moved(self, request: ErasureRequest) -> None:
        with self._lock:
            self._in_work.pop(request.request_id, None)
            if request.state in _IN_WORK:
                self._in_work[request.request_id] = None
        receipt = {} if request.receipt is None else {"receipt": request.receipt}
        self.write(
            "request",
            request_id=request.request_id,
            state=request.shown.value,
            shards=list(request.found.shards),
            points=request.found.points,
            due_at=request.due_at,
            held=request.pause is not None,
            **receipt,
        )

    def _requests(self) -> dict[str, Value]:
        """Return the requests that are being worked on."""
        with self._lock:
            ids = list(self._in_work)
        more = {"more_requests": len(ids) - MOST_REQUESTS} if len(ids) > MOST_REQUESTS else {}
        return {"request_ids": ids[:MOST_REQUESTS], **more}
