"""Erasure requests that arrive over HTTP: drafted here, accepted by the coordinator, looked up in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from cluster.ensemble.replica_state import Standing
from cluster.results.federation import ErasureAnswer, ReadmissionAnswer
from cluster.tokens import TokenRecord
from cluster.writer.drafting import new_request_id, readmission_of, roll_of
from cluster.writer.writer import WriterSetup, draft, drafted_for_all
from coordinator.decisions.times import latest_time
from coordinator.delays import check_reason
from coordinator.engine.ended import find_readmission, find_request
from coordinator.interventions import Intervention
from coordinator.requests import ErasureRequest, Readmission, check_own_request_id
from coordinator.status import RequestStatus, describe_request, without_effect
from shards.tombstones import DigestSet
from storage.errors import Conflict, Invalid, ObjectMissing, Unavailable


class Accepting(Protocol):
    """Accepts and changes erasure requests: the coordinator, in this process or another one. See ``Writer``."""

    def accept(self, request: ErasureRequest, names: DigestSet) -> ErasureRequest:
        """Accept a request, durably; repeating it returns the accepted one."""
        ...

    def readmit(self, readmission: Readmission, names: DigestSet) -> Readmission:
        """Let subjects who were erased come back, durably; repeating a readmission returns the recorded one."""
        ...

    def intervene(self, request_id: str, wanted: Intervention) -> ErasureRequest:
        """Pause a request, release it, move its due date or withdraw it."""
        ...


class Erasures:
    """A replica's side of erasure requests. Calls block: they are for threads, not for event loops."""

    def __init__(self, setup: WriterSetup, standing: Standing, find: Callable[[], Accepting | None]) -> None:
        """``find`` returns the running coordinator; None if there is not one."""
        self._setup = setup
        self._standing = standing
        self._find = find

    def submit(
        self,
        token: TokenRecord,
        subjects: Iterable[str | int],
        ids: Iterable[str | int],
        request_id: str | None,
        held: str,
        *,
        include_similar: bool = False,
    ) -> tuple[ErasureAnswer, bool]:
        """Return the request, accepted and durable, and whether it is new: then it belongs to the ``token``.

        Only this answer has the private details of the request; see ``Reading.answer_to``.
        Raises ``Invalid`` when nothing is named, ``Conflict`` when the id was used for other names, or for a request
        that the token may not see, ``Unavailable`` when nothing is trained, or no coordinator is at work.
        """
        self._standing.trained()
        made = draft(
            self._setup,
            subjects=subjects,
            ids=ids,
            request_id=request_id,
            held=held,
            include_similar=include_similar,
        )
        earlier = self._known(made.request.request_id)
        _refuse_anothers(token, earlier)
        accepted = self._accepted(token, made.request, made.names)
        return self._standing.reading.answer_to(made, accepted).naming(subjects, ids), earlier is None

    def submit_everyone(self, token: TokenRecord, request_id: str | None) -> tuple[ErasureAnswer, bool]:
        """Return the request that erases everybody who has a data point here, and whether it is new.

        See ``submit``, and ``drafted_for_all``.
        """
        state = self._standing.trained()
        own_id = new_request_id(self._setup.new_name) if request_id is None else request_id
        wanted = drafted_for_all(self._setup, state, own_id)
        if wanted is None:
            return ErasureAnswer.of(self.find(token, own_id)), False
        return ErasureAnswer.of(self._described(self._accepted(token, *wanted))), True

    def find(self, token: TokenRecord, request_id: str) -> RequestStatus:
        """Return a request's status. Raises ``ObjectMissing`` unless it exists and the token may see it."""
        return self._described(self._visible(token, request_id))

    def receipt(self, token: TokenRecord, request_id: str) -> bytes:
        """Return a request's receipt, as 'sisa receipt' prints it.

        For a refused request it is the statement that nothing was found. Tokens that see every request also see the
        receipts of readmissions. Raises ``ObjectMissing`` when there is not yet a receipt that the token may see.
        """
        state = None if self.readmission(token, request_id) else self.find(token, request_id).state
        try:
            return self._setup.registrar.find(request_id).to_bytes()
        except ObjectMissing as error:
            raise ObjectMissing(
                f"there is no receipt for this request: it is {state or 'being written'}",
                "Ask again when the request is complete or refused.",
            ) from error

    def intervene(self, token: TokenRecord, request_id: str, wanted: Intervention) -> RequestStatus:
        """Change a request as ``wanted``, and return its new status.

        Raises ``ObjectMissing`` when there is no such request, ``Unavailable`` when no coordinator is at work, and as
        ``coordinator.decisions.policy.ruling`` does.
        """
        self._visible(token, request_id)
        return self._described(self._coordinator().intervene(request_id, wanted))

    def readmit(self, subjects: Iterable[str | int], reason: str, request_id: str | None = None) -> ReadmissionAnswer:
        """Let erased subjects come back, and return the readmission. The caller has checked that the token may.

        Raises ``Invalid`` when nobody is named, none of them was erased or the reason cannot be shown, ``Conflict``
        when the id was used for others, ``Unavailable`` as ``submit`` does.
        """
        self._standing.trained()
        check_reason(reason)
        if request_id is not None:
            check_own_request_id(request_id)
        state, key = self._standing.reading.trained()
        own_id = new_request_id(self._setup.new_name) if request_id is None else request_id
        roll = roll_of(self._setup.specification, key, state.naming, subjects, (), request_id=own_id)
        kept_out = self._standing.reading.kept_out(roll, own_id)
        wanted = readmission_of(roll.names, own_id, reason, self._setup.clock.now())
        return ReadmissionAnswer.of(self._coordinator().readmit(wanted, roll.names), subjects, **kept_out)

    def _accepted(self, token: TokenRecord, request: ErasureRequest, names: DigestSet) -> ErasureRequest:
        """Have the request accepted; check its id again, which another caller may have used a moment before."""
        try:
            accepted = self._coordinator().accept(replace(request, by=token.token_id), names)
        except Conflict:
            _refuse_anothers(token, self._known(request.request_id))
            raise
        _refuse_anothers(token, accepted)
        return accepted

    def readmission(self, token: TokenRecord, request_id: str) -> Readmission | None:
        """Return the readmission of this id; None unless it exists and the token may see it."""
        if token.sees_only_its_own:
            return None
        return find_readmission(self._setup.store, self._standing.current, request_id)

    def _visible(self, token: TokenRecord, request_id: str) -> ErasureRequest:
        request = self._known(request_id)
        self._setup.clock.saw(latest_time(self._standing.current()))
        if request is None or _is_anothers(token, request):
            raise ObjectMissing("there is no such erasure request", "Check its id: requests are never deleted.")
        return request

    def _known(self, request_id: str) -> ErasureRequest | None:
        return find_request(self._setup.store, self._standing.current, request_id)

    def _coordinator(self) -> Accepting:
        coordinator = self._find()
        if coordinator is None:
            raise Unavailable("no coordinator is at work to accept or change requests", "Run 'sisa launch'.")
        return coordinator

    def _described(self, request: ErasureRequest) -> RequestStatus:
        # Measures are for those who run the federation: they would say more about a person's data than a receipt does.
        return without_effect(describe_request(request, self._setup.clock.now()))


def _is_anothers(token: TokenRecord, request: ErasureRequest) -> bool:
    return token.sees_only_its_own and request.by != token.token_id


def _refuse_anothers(token: TokenRecord, earlier: ErasureRequest | None) -> None:
    """Raise ``Conflict`` when the token may not see the request with this id, without revealing whom it names."""
    if earlier is not None and _is_anothers(token, earlier):
        raise Conflict(
            "this request id was used before, and not with this token",
            "Choose another Idempotency-Key, or leave it out: one is drawn then.",
        ) from None


def checked_names(values: Iterable[object], what: str) -> list[str | int]:
    """Return ``values`` if all are valid names, texts or whole numbers. Raises ``Invalid`` otherwise."""
    names: list[str | int] = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise Invalid(f"{what} holds something that is not a name", "Give non-empty texts or whole numbers.")
        names.append(value)
    return names
