"""Requests under load: acknowledgements a second, time until nothing tainted can be served, a million ids at once."""

from __future__ import annotations

import resource
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

from cluster.config.specification import FederationSpecification
from cluster.coordinator_actor.resident import Resident
from cluster.federation import Federation
from cluster.writer.writer import drafted, writer_setup
from coordinator.ports import Notice, RequestMoved, TrainingStarted
from coordinator.requests import RequestState
from deploy.views.tables import table
from storage.objects import new_name, object_key

SUBMITTERS = 16
REQUESTS = 2_000
SAFETY_REQUESTS = 100
MILLION = 1_000_000


def report_requests(federation: Federation, specification: FederationSpecification) -> None:
    """Measure, and print tables; the federation is trained, and has persons ``person-0000`` and so on."""
    _report_million(federation)
    watch = _Safety()
    resident = Resident(lambda listener: writer_setup(specification, listener=_both(listener, watch)))
    try:
        _report_safety(resident, specification, watch)
        _await_idle(resident)
        _report_acknowledgements(resident, specification, "with nothing else to do")
        _begin_retraining(resident, specification)
        _report_acknowledgements(resident, specification, "while two workers retrain on the same processors")
    finally:
        resident.stop()


@dataclass(slots=True)
class _Safety:
    """A listener that times when each request's points are quarantined."""

    moments: dict[str, float] = field(default_factory=dict)

    def __call__(self, notice: Notice) -> None:
        """Note the time of a quarantine."""
        match notice:
            case RequestMoved(request=request) if request.state is RequestState.QUARANTINED:
                self.moments.setdefault(request.request_id, time.perf_counter())


def _both(one: Callable[[Notice], None], other: Callable[[Notice], None]) -> Callable[[Notice], None]:
    def tell(notice: Notice) -> None:
        one(notice)
        other(notice)

    return tell


def _report_safety(resident: Resident, specification: FederationSpecification, watch: _Safety) -> None:
    """One request after another, each while the retrain for those before is under way."""
    resident.state()
    setup = writer_setup(specification, listener=lambda _: None)
    waits = []
    for number in range(SAFETY_REQUESTS):
        request, names = drafted(
            setup, subjects=[f"person-{number + 100:04d}"], ids=(), request_id=f"safe-{number}", held=""
        )
        resident.accept(request, names)
        acknowledged = time.perf_counter()
        after = 0
        while request.request_id not in watch.moments:
            after = resident.hear(after, 1.0).upto
        waits.append(max(0.0, watch.moments[request.request_id] - acknowledged) * 1000)
    lines = [(SAFETY_REQUESTS, *(f"{value:.1f}" for value in (median(waits), _p99(waits), max(waits))))]
    print(
        "\nfrom the acknowledgement to the commit that withdraws what has seen the person, shards retraining meanwhile"
    )
    print(table(("requests", "median ms", "p99 ms", "worst ms"), lines))


def _await_idle(resident: Resident) -> None:
    heard = resident.hear(None, 0.0)
    while not heard.idle:
        heard = resident.hear(heard.upto, 1.0)


def _begin_retraining(resident: Resident, specification: FederationSpecification) -> None:
    setup = writer_setup(specification, listener=lambda _: None)
    people = [f"person-{number:04d}" for number in range(300, 320)]
    heard = resident.hear(None, 0.0)
    resident.accept(*drafted(setup, subjects=people, ids=(), request_id="busy", held=""))
    while not any(isinstance(notice, TrainingStarted) for notice in heard.notices):
        heard = resident.hear(heard.upto, 1.0)


def _report_acknowledgements(resident: Resident, specification: FederationSpecification, beside: str) -> None:
    """Durable acknowledgements of paused requests (no removal competes), beside bare durable puts of one thread."""
    setup = writer_setup(specification, listener=lambda _: None)
    waiting = deque(
        drafted(setup, subjects=[f"person-{n % 500:04d}"], ids=(), request_id=f"ack-{new_name()}", held="bench")
        for n in range(REQUESTS)
    )
    puts = _puts_per_second(specification)
    times: list[float] = []

    def submit() -> None:
        while True:
            try:
                request, names = waiting.popleft()
            except IndexError:
                return
            began = time.perf_counter()
            resident.accept(request, names)
            times.append((time.perf_counter() - began) * 1000)

    threads = [threading.Thread(target=submit) for _ in range(SUBMITTERS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = REQUESTS / (time.perf_counter() - began)
    print(f"\ndurable acknowledgements, {SUBMITTERS} submitters, encrypted local store, {beside}")
    header = ("requests", "per second", "median ms", "p99 ms", "bare puts per second, one thread")
    print(table(header, [(REQUESTS, f"{rate:.0f}", f"{median(times):.1f}", f"{_p99(times):.1f}", f"{puts:.0f}")]))


def _puts_per_second(specification: FederationSpecification, count: int = 200) -> float:
    store = writer_setup(specification, listener=lambda _: None).store
    keys = [object_key(f"requests/{new_name()}.bench") for _ in range(count)]
    began = time.perf_counter()
    for key in keys:
        store.put_if_absent(key, b"x" * 400)
    seconds = time.perf_counter() - began
    store.delete_all(keys)
    return count / seconds


def _report_million(federation: Federation) -> None:
    names = [f"somebody-{number:07d}" for number in range(MILLION)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    plan = federation.price(subjects=[*names, "person-0001"])
    seconds = time.perf_counter() - began
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print("\none request that names a million subjects, planned")
    header = ("names", "points found", "s", "peak MiB of the process", "of these before")
    print(table(header, [(MILLION + 1, plan.points, f"{seconds:.2f}", most // 1024, before // 1024)]))


def _p99(values: Sequence[float]) -> float:
    return quantiles(values, n=100)[98]
