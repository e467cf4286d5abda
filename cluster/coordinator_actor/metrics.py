"""Metrics: what monitoring may see of a federation. No Ray in here: ``ray_metrics`` exports them.

There are few series on purpose: a federation's name, a request's state and a token's role are the only labels, so that
no metric names a request, a person, a token or a data point. Gauges are computed from the state alone and are right
immediately after a restart; histograms count each request in the process that handled it. Times are exported as seconds
since 1970, not as ages: an age would be wrong as soon as the process stops exporting it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Final, Literal, Protocol, get_args

from cluster.coordinator_actor.store_size import StoreSize
from cluster.tokens import Role, TokenRecord
from coordinator.ports import Clock
from coordinator.requests import Cost, ErasureRequest, RequestState
from coordinator.state import FederationState, servable
from shards.specification import ShardId

EXPORTED_PREFIX: Final = "ray_"
"""Ray's prefix of the names of all metrics that it exports."""

_MINUTE: Final = 60.0
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric."""

    name: str
    kind: Literal["gauge", "histogram"]
    description: str
    labels: tuple[str, ...] = ("federation",)
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram."""

    @property
    def exported(self) -> tuple[str, ...]:
        """The names under which Prometheus knows it."""
        endings = ("_bucket", "_count", "_sum") if self.kind == "histogram" else ("",)
        return tuple(f"{EXPORTED_PREFIX}{self.name}{ending}" for ending in endings)


def _gauge(name: str, description: str, *more_labels: str) -> Metric:
    return Metric(name=name, kind="gauge", description=description, labels=("federation", *more_labels))


def _histogram(name: str, description: str, buckets: tuple[float, ...]) -> Metric:
    return Metric(name=name, kind="histogram", description=description, buckets=buckets)


REQUESTS: Final = _gauge("sisa_requests", "Erasure requests, by the state that people see.", "state")
OLDEST_UNSAFE: Final = _gauge(
    "sisa_oldest_unsafe_timestamp_seconds",
    "When the oldest request came whose data points may still be in a served model; 0: there is none.",
)
NEXT_DUE: Final = _gauge("sisa_next_due_timestamp_seconds", "When the next open request is due; 0: none is open.")
SECONDS_TO_SAFE: Final = _histogram(
    "sisa_seconds_to_safe",
    "From a request's acceptance, pauses left out, to its quarantine: no prediction uses what has seen its points.",
    (0.1, 0.5, 1.0, 2.0, 5.0, 15.0, _MINUTE, 10 * _MINUTE, _HOUR, _DAY),
)
SECONDS_TO_COMPLETE: Final = _histogram(
    "sisa_seconds_to_complete",
    "From a request's acceptance, pauses left out, to its completion: retrained, purged, receipt in the log.",
    (1.0, 10.0, _MINUTE, 10 * _MINUTE, _HOUR, 6 * _HOUR, _DAY, 7 * _DAY, 30 * _DAY, 90 * _DAY),
)
EXPECTED_POINT_EPOCHS: Final = _gauge(
    "sisa_retrain_expected_point_epochs", "Work that the retrains of all complete requests were expected to take."
)
SPENT_POINT_EPOCHS: Final = _gauge(
    "sisa_retrain_spent_point_epochs", "Work that the retrains of all complete requests took."
)
EXPECTED_SECONDS: Final = _gauge(
    "sisa_retrain_expected_seconds", "Worker time that the retrains of all complete requests were expected to take."
)
SPENT_SECONDS: Final = _gauge(
    "sisa_retrain_spent_seconds", "Worker time that the retrains of all complete requests took."
)
GENERATION: Final = _gauge("sisa_generation", "Number of the ensemble that is served; 0: none yet.")
FLOOR: Final = _gauge("sisa_erasure_floor", "Lowest generation that may be served.")
CONSTITUENTS: Final = _gauge("sisa_constituents", "Shards, and so constituents when all answer.")
SERVING: Final = _gauge("sisa_constituents_serving", "Constituents that answer; the others abstain.")
TAINTED: Final = _gauge("sisa_constituents_tainted", "Served constituents that have seen erased points: must be 0.")
POINTS: Final = _gauge("sisa_points", "Data points in the federation.")
JOURNAL: Final = _gauge("sisa_journal_entries", "Journal entries since the last manifest.")
LAST_PURGE: Final = _gauge(
    "sisa_last_purge_timestamp_seconds", "When an erasure was last purged from the store; 0: none was."
)
TROUBLED: Final = _gauge("sisa_coordinator_troubled", "1 while something keeps the coordinator from going on.")
SHOWN: Final = _gauge("sisa_shown_timestamp_seconds", "When the coordinator last exported these values.")
STORE_OBJECTS: Final = _gauge("sisa_store_objects", "Objects in the store, counted once an hour.")
STORE_BYTES: Final = _gauge("sisa_store_bytes", "Bytes in the store, counted once an hour; without older versions.")
API_READY: Final = _gauge(
    "sisa_api_ready_timestamp_seconds", "When a replica of the API could last answer; 0: it never could."
)
TOKEN_EXPIRES: Final = _gauge(
    "sisa_token_expires_timestamp_seconds",
    "When the next of the API's tokens with this role expires; 0: none is in force.",
    "role",
)

METRICS: Final = (
    *(REQUESTS, OLDEST_UNSAFE, NEXT_DUE, SECONDS_TO_SAFE, SECONDS_TO_COMPLETE),
    *(EXPECTED_POINT_EPOCHS, SPENT_POINT_EPOCHS, EXPECTED_SECONDS, SPENT_SECONDS),
    *(GENERATION, FLOOR, CONSTITUENTS, SERVING, TAINTED, POINTS),
    *(JOURNAL, LAST_PURGE, TROUBLED, SHOWN, STORE_OBJECTS, STORE_BYTES),
)
"""The metrics of a coordinator."""

REPLICA_METRICS: Final = (API_READY, TOKEN_EXPIRES)
"""The metrics of each replica of the API."""


_MOST_REMEMBERED: Final = 100_000
"""How many measured requests are remembered, so that no request is measured twice: more than a state holds at a
time."""


class Meter(Protocol):
    """Takes values and passes them to the monitoring system."""

    def set(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Take the current value of a gauge."""
        ...

    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Take one more measurement of a histogram."""
        ...


class Gauges:
    """One federation's metrics."""

    def __init__(self, federation: str, meter: Meter, clock: Clock) -> None:
        self._labels = {"federation": federation}
        self._meter = meter
        self._clock = clock
        self._since = clock.now()
        """Earlier events are not measured: an earlier process has measured them, or none was running."""
        self._measured: dict[tuple[str, RequestState], None] = {}  # under ``_lock``
        self._lock = Lock()

    def show(
        self, state: FederationState, *, journal_entries: int, troubled: bool, size: StoreSize | None = None
    ) -> None:
        """Export everything that follows from ``state``, and the store's ``size``: None where it is not known yet."""
        for metric, value in _values(state):
            self._set(metric, value)
        for request_state, count in _by_state(state).items():
            self._meter.set(REQUESTS, count, {**self._labels, "state": request_state.value})
        self._set(JOURNAL, journal_entries)
        self._set(TROUBLED, troubled)
        if size is not None:
            self._set(STORE_OBJECTS, size.objects)
            self._set(STORE_BYTES, size.payload_bytes)
        for request in state.requests:
            self.measure(request)
        self._set(SHOWN, self._clock.now().timestamp())

    def measure(self, request: ErasureRequest) -> None:
        """Measure, once per request, how long it took to reach a state that it reached since this process began."""
        self._measure(SECONDS_TO_SAFE, RequestState.QUARANTINED, request)
        self._measure(SECONDS_TO_COMPLETE, RequestState.COMPLETE, request)

    def _set(self, metric: Metric, value: float) -> None:
        self._meter.set(metric, float(value), self._labels)

    def _measure(self, metric: Metric, reached: RequestState, request: ErasureRequest) -> None:
        at, key = request.times.get(reached.value), (request.request_id, reached)
        if at is None or (moment := datetime.fromisoformat(at)) < self._since:
            return
        with self._lock:  # notices and reports come from different threads
            if key in self._measured:
                return
            self._measured[key] = None
            if len(self._measured) > _MOST_REMEMBERED:
                del self._measured[next(iter(self._measured))]
        self._meter.observe(metric, max(0.0, moment.timestamp() - _begun(request)), self._labels)


class ReplicaGauges:
    """The metrics of one replica of a federation's API."""

    def __init__(self, federation: str, meter: Meter, clock: Clock) -> None:
        self._labels = {"federation": federation}
        self._meter = meter
        self._clock = clock
        self._ready_at = 0.0  # only Serve's health checks change it, one at a time

    def show(self, *, is_ready: bool, tokens: Iterable[TokenRecord]) -> None:
        """Report whether it can answer now, and when the next of ``tokens`` that is in force expires, by role."""
        now = self._clock.now()
        if is_ready:
            self._ready_at = now.timestamp()
        self._meter.set(API_READY, self._ready_at, self._labels)
        in_force = [token for token in tokens if not token.is_over(now)]
        for role in get_args(Role):
            ends = min((_moment(token.expires_at) for token in in_force if token.role == role), default=0.0)
            self._meter.set(TOKEN_EXPIRES, ends, {**self._labels, "role": role})


def tainted(state: FederationState) -> tuple[ShardId, ...]:
    """Return the shards whose served checkpoint has not seen exactly what its slices hold now; there must not be any.

    This compares the lineages (E8) instead of trusting the state: chains are cut where lineages differ, and this metric
    would show one that was not.
    """
    found = []
    for constituent in servable(state):
        lineages = state.lineages(constituent.shard)
        place = constituent.checkpoint.slice - 1
        if place >= len(lineages) or lineages[place].digest() != constituent.checkpoint.lineage:
            found.append(constituent.shard)
    return tuple(found)


def _values(state: FederationState) -> Iterator[tuple[Metric, float]]:
    complete = [request for request in state.requests if request.state is RequestState.COMPLETE]
    expected = sum((request.found.expected or Cost() for request in complete), start=state.ended.expected)
    spent = sum((request.spent for request in complete), start=state.ended.spent)
    yield EXPECTED_POINT_EPOCHS, expected.point_epochs
    yield SPENT_POINT_EPOCHS, spent.point_epochs
    yield EXPECTED_SECONDS, expected.seconds
    yield SPENT_SECONDS, spent.seconds
    yield GENERATION, state.generation
    yield FLOOR, state.floor
    yield CONSTITUENTS, len(state.shards)
    yield SERVING, len(servable(state))
    yield TAINTED, len(tainted(state))
    yield POINTS, sum(shard.points for shard in state.shards)
    yield OLDEST_UNSAFE, min((_begun(each) for each in state.requests if _is_unsafe(each)), default=0.0)
    yield NEXT_DUE, min((_moment(each.due_at) for each in state.requests if _is_awaited(each)), default=0.0)
    purges = (state.ended.purged_at, *(each.times.get(RequestState.PURGED.value, "") for each in state.requests))
    yield LAST_PURGE, max((_moment(at) for at in purges if at), default=0.0)


def _by_state(state: FederationState) -> dict[RequestState, int]:
    """Return the number of requests in each state, zeros included: a series that ends would keep its last value."""
    ended = state.ended
    counts = Counter(request.shown for request in state.requests)
    counts.update(
        {
            RequestState.COMPLETE: ended.complete,
            RequestState.REFUSED: ended.refused,
            RequestState.CANCELLED: ended.cancelled,
        }
    )
    return {each: counts[each] for each in RequestState}


def _is_unsafe(request: ErasureRequest) -> bool:
    return _is_awaited(request) and RequestState.QUARANTINED.value not in request.times


def _is_awaited(request: ErasureRequest) -> bool:
    return request.state.is_open and request.pause is None


def _begun(request: ErasureRequest) -> float:
    """Return when the request's clock began to run: at its release where it was paused, since then nothing was done."""
    return _moment(request.holds[-1].released_at if request.holds else request.received_at)


def _moment(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
