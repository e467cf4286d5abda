"""What a command says: one envelope for machines, text for people, an exit code for scripts."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, is_dataclass
from enum import IntEnum
from typing import Any, Final

from storage.errors import Conflict, Fenced, Invalid, ObjectMissing, SisaError, Unavailable

SCHEMA_VERSION: Final = 1


class ExitCode(IntEnum):
    """What a script may rely on."""

    DONE = 0
    FAILED = 1
    INVALID = 2
    """Wrong usage or bad input."""
    PROOF_FAILED = 3
    CONFLICT = 4
    UNAVAILABLE = 5
    """Try again later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The ``error`` of an envelope."""

    kind: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a command ended. An end that is no success may still have data: what was found, what was refused."""

    data: Mapping[str, Any] | None = None
    text: str = ""
    problem: Problem | None = None
    code: ExitCode = ExitCode.DONE


def run(action: Callable[[], Outcome], *, as_json: bool, tracebacks: bool = False) -> ExitCode:
    """Do ``action``, say how it ended, and return the exit code.

    With ``as_json`` exactly one JSON object goes to stdout, and nothing else does: what libraries and models print
    meanwhile (Ray tells of a worker's death that way) goes to stderr.
    """
    with redirect_stdout(sys.stderr):
        outcome = _attempt(action, tracebacks=tracebacks)
    say(outcome, as_json=as_json)
    return outcome.code


def _attempt(action: Callable[[], Outcome], *, tracebacks: bool) -> Outcome:
    try:
        return action()
    except SisaError as error:
        return _failed(error)
    except KeyboardInterrupt:
        return _interrupted()
    except OSError as error:
        return _system_failed(error)
    except Exception as error:  # noqa: BLE001  a person gets a sentence; the traceback may hold personal data
        if tracebacks:
            traceback.print_exc()
        return _bug(error)


def say(outcome: Outcome, *, as_json: bool) -> None:
    """Print the outcome: JSON to stdout, or text to stdout and problems to stderr."""
    if as_json:
        sys.stdout.write(json.dumps(envelope(outcome), ensure_ascii=False) + "\n")
    else:
        if outcome.text:
            sys.stdout.write(outcome.text.rstrip("\n") + "\n")
        if outcome.problem:
            sys.stderr.write(f"error: {outcome.problem.message}\n")
            if outcome.problem.remedy:
                sys.stderr.write(f"  {outcome.problem.remedy}\n")
    sys.stdout.flush()


def envelope(outcome: Outcome) -> dict[str, Any]:
    """Return the JSON object of an outcome (contract, DESIGN section 5)."""
    result: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "status": "error" if outcome.problem else "ok"}
    if outcome.data is not None:
        result["data"] = plain(outcome.data)
    if outcome.problem is not None:
        result["error"] = asdict(outcome.problem)
    return result


def plain(value: Any) -> Any:
    """Return ``value`` with dataclasses as objects and tuples as lists, ready for JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(entry) for entry in value]
    return value


def _failed(error: SisaError) -> Outcome:
    codes = (
        ((Invalid, ObjectMissing), ExitCode.INVALID),
        ((Conflict, Fenced), ExitCode.CONFLICT),
        (Unavailable, ExitCode.UNAVAILABLE),
    )
    code = next((code for kinds, code in codes if isinstance(error, kinds)), ExitCode.FAILED)
    return Outcome(problem=Problem(kind=error.kind, message=error.message, remedy=error.remedy), code=code)


def _interrupted() -> Outcome:
    return Outcome(
        problem=Problem(
            kind="interrupted",
            message="interrupted; what was committed is kept",
            remedy="run the command again, or any other that writes: it goes on from there",
        ),
        code=ExitCode.FAILED,
    )


def _system_failed(error: OSError) -> Outcome:
    name = f": {error.filename}" if error.filename else ""
    return Outcome(
        problem=Problem(
            kind="failed",
            message=f"the operating system refused: {error.strerror or type(error).__name__}{name}",
            remedy="check that the path exists, that there is room, and that you may write there",
        ),
        code=ExitCode.FAILED,
    )


def _bug(error: Exception) -> Outcome:
    return Outcome(
        problem=Problem(
            kind="internal",
            message=f"an unexpected {type(error).__name__} stopped the command; this is a bug",
            remedy="set SISA_TRACEBACK=1 to see where, and report it; the store is as it was last committed",
        ),
        code=ExitCode.FAILED,
    )
