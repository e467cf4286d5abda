"""Reading the names, carrying out and printing for ``sisa erase`` and related commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.writer.drafting import FormlessName, new_request_id
from coordinator.delays import check_reason
from coordinator.requests import RequestState, check_request_id
from coordinator.status import FederationStatus, RequestStatus
from deploy.name_file import names_in
from deploy.views.output import ExitCode, Outcome, Problem, json_value
from deploy.views.text import ended_before_text, erasure_text, plan_text, request_text, similar_text
from storage.errors import Conflict, Invalid, ObjectMissing, Unavailable

if TYPE_CHECKING:
    from cluster.federation import Federation
    from cluster.results.federation import ErasureAnswer, ReadmissionAnswer, Search

_MOST_SHOWN = 20
_CLOSED = frozenset(state.value for state in RequestState if not state.is_open)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The names given to a command."""

    subjects: tuple[str, ...]
    """On the command line."""
    ids: tuple[str, ...]
    """On the command line."""
    in_file: Path | None
    file_of_ids: bool
    """Whether the file's lines name data points; otherwise they name subjects."""

    def names(self) -> tuple[Iterable[str], Iterable[str]]:
        """Return subjects and ids; those in the file are read as they are taken."""
        listed = names_in(self.in_file) if self.in_file is not None else ()
        of_subjects, of_ids = ((), listed) if self.file_of_ids else (listed, ())
        return chain(self.subjects, of_subjects), chain(self.ids, of_ids)

    @contextmanager
    def lines(self) -> Iterator[None]:
        """Add the file's line number to the error about a name that cannot be accepted, if its position is known."""
        try:
            yield
        except FormlessName as error:
            kind, given = ("id", self.ids) if self.file_of_ids else ("subject", self.subjects)
            line = int(error.context.get(f"{kind}_number", 0)) - len(given)
            if self.in_file is None or line < 1:
                raise
            raise Invalid(error.fact, error.remedy, file=str(self.in_file), line=line) from None

    def private_facts(self, answer: ErasureAnswer) -> dict[str, Any]:
        """Return the parts of an answer that only the requester gets: which names are unknown, and the salt."""
        return {**self.unknown_at(answer.unknown_subjects, answer.unknown_ids), "salt": answer.salt}

    def unknown_at(self, at_subjects: Sequence[int], at_ids: Sequence[int]) -> dict[str, list[Any]]:
        """Return the unknown names at these positions: as given on the command line, or as line numbers of the file."""
        names: list[Any] = []
        lines: list[Any] = []
        for given, positions in ((self.subjects, at_subjects), (self.ids, at_ids)):
            count = len(given)
            names += [given[position] for position in positions if position < count]
            lines += [position - count + 1 for position in positions if position >= count]
        return {"unknown_names": names, "unknown_lines": lines}


def given_names(
    subjects: Sequence[str], ids: Sequence[str], more: Sequence[str], file: Path | None, file_of: str
) -> Given:
    """Return the names on the command line and in the file.

    ``more`` are the bare words after ``--subject A`` or ``--id A``. Raises ``Invalid`` when it is not clear whether
    they are subjects or ids, and when nothing is named. If the file has bad lines, reading the names raises it later.
    """
    if file_of not in ("subjects", "ids"):
        raise Invalid(f"--file-of takes subjects or ids, got {file_of!r}", "Choose one of the two.")
    if more and bool(subjects) == bool(ids):
        raise Invalid(
            "a bare name may be a person or a data point, and the command does not say which",
            "Write 'sisa erase --subject NAME' for all data points of a person, or 'sisa erase --id NAME' for a single"
            " data point. With --dry-run the command only says what that would cost.",
        )
    if not subjects and not ids and file is None:
        raise Invalid("no subject and no data point is named", "Name them with --subject, --id or --file.")
    if "" in (*subjects, *ids, *more):
        raise Invalid("an empty name cannot be erased", "Check the quoting of --subject and --id.")
    of_subjects, of_ids = (more, ()) if subjects else ((), more)
    return Given(subjects=(*subjects, *of_subjects), ids=(*ids, *of_ids), in_file=file, file_of_ids=file_of == "ids")


def check_given(request_id: str | None, hold: str | None) -> None:
    """Raise ``Invalid`` when a given request id or reason to pause is empty, too long, or cannot be printed."""
    if request_id is not None:
        check_request_id(request_id)
    if hold is not None:
        check_reason(hold)


def submit(
    federation: Federation,
    given: Given,
    *,
    request_id: str | None,
    hold: str | None,
    wait: bool,
    include_similar: bool = False,
) -> Outcome:
    """Submit an erasure request and carry it out as far as possible now; ``hold``, a reason, submits it paused.

    If a coordinator carries it out, the command waits for that only with ``wait``.
    Raises ``Conflict`` when ``hold`` is given and the request was submitted before without a pause.
    """
    from storage.objects import new_name

    earlier = None if request_id is None else request_if_known(federation, request_id)
    refuse_late_hold(hold, earlier)
    # Drawn here, so that it is known after an interrupt.
    own_id = new_request_id(new_name) if request_id is None else request_id

    private: dict[str, Any] = {}

    def keep(answer: ErasureAnswer) -> None:  # from its acceptance on: the command may be interrupted later
        private.update(given.private_facts(answer))

    def act() -> RequestStatus:
        subjects, ids = given.names()
        with given.lines():
            answer = federation.erase(
                subjects=subjects,
                ids=ids,
                request_id=own_id,
                held=hold or "",
                wait=wait,
                include_similar=include_similar,
                on_accepted=keep,
            )
        keep(answer)
        return request_if_known(federation, own_id) or answer

    return with_private_facts(carried_out(federation, own_id, act, earlier), private, given.in_file)


def with_private_facts(outcome: Outcome, private: dict[str, Any], file: Path | None) -> Outcome:
    """Return the outcome with the parts that only the requester gets: which names are unknown, and the salt."""
    if outcome.data is None or not private:
        return outcome
    lines = unknown_text(private, file)
    if salt := private.get("salt"):
        is_refused = outcome.data["state"] == RequestState.REFUSED.value
        lines.append(
            f"'sisa receipt {outcome.data['request_id']}' prints"
            f" {'a signed statement that nothing was found' if is_refused else 'the signed receipt'}."
            f" Keep this salt: it is stored nowhere else, and shows whom the receipt is about: {salt}"
        )
    private = {name: value for name, value in private.items() if value}
    return replace(outcome, data={**outcome.data, **private}, text="\n".join([outcome.text or "", *lines]).strip())


def unknown_text(private: dict[str, Any], file: Path | None) -> list[str]:
    """Return lines that list the names without a data point here."""
    lines = []
    if names := private["unknown_names"]:
        lines.append(f"no data point here of: {listed(names)}")
    if numbers := private["unknown_lines"]:
        lines.append(f"no data point here of the names in these lines of {file}: {listed(numbers)}")
    return lines


def listed(values: Sequence[object]) -> str:
    """Return the values in a line, or the first ones and how many more there are."""
    shown = ", ".join(map(str, values[:_MOST_SHOWN]))
    return shown if len(values) <= _MOST_SHOWN else f"{shown} and {len(values) - _MOST_SHOWN:,} more"


def refuse_late_hold(hold: str | None, earlier: RequestStatus | None) -> None:
    """Raise ``Conflict`` when ``hold`` asks for a pause, but the request was submitted ``earlier`` without one."""
    if hold and earlier is not None and earlier.state not in {RequestState.WAITING.value, *_CLOSED}:
        raise Conflict(
            "this request was submitted before, without a pause",
            "Pause it with 'sisa request hold', which is possible until its data points are removed.",
            request=earlier.request_id,
        )


def carried_out(
    federation: Federation, request_id: str, act: Callable[[], RequestStatus], earlier: RequestStatus | None = None
) -> Outcome:
    """Carry a request out and return how that ended, even by an interrupt; ``earlier``: its state before.

    If the work cannot be done now, an accepted request stays accepted (D1), and the outcome says so.
    """
    try:
        request = act()
    except KeyboardInterrupt:
        return interrupted_outcome(request_if_known(federation, request_id), federation.status())
    except (Unavailable, Invalid) as error:
        accepted = request_if_known(federation, request_id)
        is_of_the_request = earlier is not None and isinstance(error, Invalid)
        if accepted is None or accepted.state in _CLOSED or is_of_the_request:
            raise
        return _left_open(accepted, federation.status(), error)
    return erase_outcome(request, federation.status(), earlier)


def _left_open(request: RequestStatus, status: FederationStatus, error: Unavailable | Invalid) -> Outcome:
    """Return the outcome of a request that was accepted before an error stopped the work."""
    return Outcome(
        data=request_data(request, status),
        problem=Problem(
            kind=error.kind,
            message=f"{error.message}; the request stays accepted [request={request.request_id} state={request.state}]",
            remedy=f"{error.remedy} The next command that writes, or 'sisa launch', then carries the request out.",
        ),
        code=ExitCode.UNAVAILABLE if isinstance(error, Unavailable) else ExitCode.INVALID,
    )


def erase_outcome(
    request: RequestStatus, status: FederationStatus | None, earlier: RequestStatus | None = None
) -> Outcome:
    """Return the progress of an erasure request; ``earlier``: its state before this command, if there was one.

    ``status`` is the federation's; None if it is not known here.
    """
    again = earlier is not None and earlier.state in _CLOSED
    problem, code = _what_is_wrong(request, again=again)
    text = ended_before_text(request) if again else erasure_text(request, status)
    return Outcome(data=request_data(request, status), text=text, problem=problem, code=code)


def changed_outcome(request: RequestStatus, status: FederationStatus) -> Outcome:
    """Return the outcome of a successful change to a request, regardless of the request's state."""
    return Outcome(data=request_data(request, status), text=request_text(request, status))


def interrupted_outcome(request: RequestStatus | None, status: FederationStatus | None) -> Outcome:
    """Return the outcome of an interrupt: an accepted request will still be carried out (D1)."""
    if request is None:
        message, remedy = "interrupted before the request was accepted: nothing will be erased", "Submit it again."
    elif request.state in _CLOSED:
        message, remedy = f"interrupted; the request is nevertheless {request.state}", "Run 'sisa status' to see it."
    elif request.state == RequestState.WAITING.value:
        message = "interrupted; the request is accepted, and paused"
        remedy = f"Run 'sisa request release {request.request_id}' to have it carried out."
    else:
        message = f"interrupted; the request is accepted and will be carried out: it is {request.state}"
        remedy = "Run 'sisa train' to continue with it, unless a coordinator is running, which continues by itself."
    fact = message if request is None else f"{message} [request={request.request_id}]"
    return Outcome(
        data=None if request is None else request_data(request, status),
        problem=Problem(kind="interrupted", message=fact, remedy=remedy),
        code=ExitCode.FAILED,
    )


def request_if_known(federation: Federation, request_id: str) -> RequestStatus | None:
    """Return the request of this id, if there is one, however long ago it ended."""
    try:
        return federation.request(request_id)
    except ObjectMissing:
        return None


def request_data(request: RequestStatus, status: FederationStatus | None) -> dict[str, Any]:
    """Return a request as the command's JSON.

    ``retrains_from`` says until when the request waits to share a retrain: empty if it does not wait, null without
    ``status``, because it is not known then.
    """
    found: dict[str, Any] = json_value(request)
    if status is None:
        return found | {"retrains_from": None}
    batch = status.batch
    waits = batch is not None and request.request_id in batch.requests
    return found | {"retrains_from": batch.retrains_from if batch and waits else ""}


def price_outcome(found: Search, given: Given) -> Outcome:
    """Return what an erasure would remove and cost, and which of its names are unknown here."""
    plan, private = found.plan, given.unknown_at(found.unknown_subjects, found.unknown_ids)
    data = {
        "request_id": None,
        "state": "dry-run",
        "shards": [each.shard for each in plan.shards],
        "points": plan.points,
        "subjects": found.subjects,
        "ids": found.ids,
        "unknown": found.unknown,
        **private,
        "similar": json_value(found.similar),
        "plan": json_value(plan) | {"fraction": plan.fraction},
    }
    unknown = [f"{found.unknown:,} of {found.subjects + found.ids:,} names are unknown here"] if found.unknown else []
    lines = [plan_text(plan), *unknown, *unknown_text(private, given.in_file), *similar_text(found.similar)]
    return Outcome(data=data, text="\n".join(lines))


def readmission_outcome(readmission: ReadmissionAnswer) -> Outcome:
    """Return the outcome of a readmission: how many subjects may come back, and which names are unaffected."""
    many = f"{readmission.subjects:,} subjects" if readmission.subjects > 1 else "1 subject"
    known = readmission.subjects - readmission.without_ids
    erased = ["those that were erased stay out by id"] * bool(known)
    if readmission.without_ids:
        whose = f"of {readmission.without_ids:,} of them" if known else "of theirs"
        erased.append(
            f"no ids are known of the data points that were erased {whose}: it comes back if the source still has it"
        )
    text = (
        f"readmission {readmission.request_id}: {many} may come back; new data points are taken at the next"
        f" 'sisa train', {'; '.join(erased)}\n"
        f"'sisa receipt {readmission.request_id}' prints the signed statement"
    )
    if readmission.unknown_names:
        text += f"\nnot erased here, so that nothing keeps them out: {listed(readmission.unknown_names)}"
    if readmission.erased_since:
        text += (
            f"\nthis was so when it was recorded: {readmission.erased_since:,} of them were erased since then and stay"
            " out; a new readmission needs a --request-id of its own"
        )
    return Outcome(data=json_value(readmission), text=text)


def _what_is_wrong(request: RequestStatus, *, again: bool) -> tuple[Problem | None, ExitCode]:
    """Return why the request will not complete by itself, if so; ``again``: it had ended before this command."""
    fact = f"{request.reason} [request={request.request_id}]"
    another = "Give a new demand a --request-id of its own. " if again else ""
    match RequestState(request.state):
        case RequestState.REFUSED:
            check = "Check the ids and values" if request.kind == "rectification" else "Check the spelling"
            remedy = f"{another}{check}; 'sisa status' shows earlier requests. Nothing was changed."
            return Problem(kind="refused", message=fact, remedy=remedy), ExitCode.INVALID
        case RequestState.CANCELLED:
            done = "corrected" if request.kind == "rectification" else "erased"
            message = f"the request was withdrawn before anything was {done}: {fact}"
            remedy = "Give a new demand a --request-id of its own."
            return Problem(kind="cancelled", message=message, remedy=remedy), ExitCode.CONFLICT
        case RequestState.FAILED:
            message = f"the request is {request.stage}, and the last attempt to continue failed: {fact}"
            remedy = "Correct what failed, then run 'sisa train', which continues from there."
            return Problem(kind="failed", message=message, remedy=remedy), ExitCode.FAILED
        case _:
            return None, ExitCode.DONE
