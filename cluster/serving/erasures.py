"""Erasure requests that come in over HTTP: drafted here, accepted by the coordinator, looked up in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from cluster.ensemble.replica_state import Standing
from cluster.writer.drafting import new_request_id
from cluster.writer.writer import Surroundings, drafted, drafted_for_all
from coordinator.requests import ErasureRequest
from coordinator.status import RequestStatus, describe_request
from shards.tombstones import DigestSet
from storage.errors import Invalid, ObjectMissing, Unavailable


class Accepting(Protocol):
    """Whoever takes erasure requests: the coordinator, near or far."""

    def accept(self, request: ErasureRequest, names: DigestSet) -> ErasureRequest:
        """Accept a request, durably; the same one again is the same one."""
        ...


class Erasures:
    """Erasure requests, from a replica's side. Calls block: they are for threads, not for event loops."""

    def __init__(self, around: Surroundings, standing: Standing, find: Callable[[], Accepting | None]) -> None:
        """``find`` returns the coordinator that is at work; None: none is."""
        self._around = around
        self._standing = standing
        self._find = find

    def submit(
        self, subjects: Iterable[str | int], ids: Iterable[str | int], request_id: str | None, held: str
    ) -> tuple[RequestStatus, bool]:
        """Return the request, accepted and durable, and whether it is new.

        Raises ``Invalid`` when nothing is named, ``Conflict`` when the id was used for other names, ``Unavailable``
        when nothing is trained, or no coordinator is at work.
        """
        state = self._standing.trained()
        request, names = drafted(self._around, subjects=subjects, ids=ids, request_id=request_id, held=held)
        is_new = state.request(request.request_id) is None
        return self._told(self._coordinator().accept(request, names)), is_new

    def submit_everyone(self, request_id: str | None) -> tuple[RequestStatus, bool]:
        """Return the request that erases everybody who has a data point here, and whether it is new.

        See ``submit``, and ``drafted_for_all``.
        """
        state = self._standing.trained()
        own_id = new_request_id(self._around.names) if request_id is None else request_id
        wanted = drafted_for_all(self._around, state, own_id)
        return (self.find(own_id), False) if wanted is None else (self._told(self._coordinator().accept(*wanted)), True)

    def find(self, request_id: str) -> RequestStatus:
        """Return how a request stands. Raises ``ObjectMissing`` when there is none."""
        state = self._standing.current()
        request = state.request(request_id) if state is not None else None
        if request is None:
            raise ObjectMissing("there is no such erasure request", "check its id; requests are for ever")
        return self._told(request)

    def receipt(self, request_id: str) -> bytes:
        """Return a request's receipt, as 'sisa receipt' prints it.

        Raises ``ObjectMissing`` when there is none, or none yet.
        """
        status = self.find(request_id)
        try:
            return self._around.registrar.find(request_id).to_bytes()
        except ObjectMissing as error:
            raise ObjectMissing(
                f"there is no receipt for this request: it is {status.state}",
                "a receipt is there when the request is complete",
            ) from error

    def _coordinator(self) -> Accepting:
        coordinator = self._find()
        if coordinator is None:
            raise Unavailable("no coordinator is at work, so that nothing can be accepted", "run 'sisa launch'")
        return coordinator

    def _told(self, request: ErasureRequest) -> RequestStatus:
        return describe_request(request, self._around.clock.now())


def named(values: Iterable[object], what: str) -> list[str | int]:
    """Return names as they may be given: texts and whole numbers. Raises ``Invalid`` for anything else."""
    names: list[str | int] = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise Invalid(f"{what} holds something that is no name", "names are texts or whole numbers, none empty")
        names.append(value)
    return names
