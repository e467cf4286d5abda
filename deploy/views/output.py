"""A command's output: one JSON envelope for machines, text for people, an exit code for scripts."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass, is_dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO, cast

from storage.errors import Conflict, Fenced, Invalid, ObjectMissing, SisaError, Unavailable
from storage.release import DISTRIBUTION, RELEASE

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
    UNTRUSTED = 6
    """Intact, but its issuer is unknown."""
    TERMINATED = 128 + signal.SIGTERM
    """The code that shells report for a process ended by SIGTERM; what was committed is kept."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: handled like an interrupt, but with an exit code of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The ``error`` of an envelope."""

    kind: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a command ended. A failed command may still have data: what was found, what was refused."""

    data: Mapping[str, Any] | None = None
    text: str = ""
    problem: Problem | None = None
    code: ExitCode = ExitCode.DONE


def run(action: Callable[[], Outcome], *, as_json: bool, tracebacks: bool = False) -> ExitCode:
    """Run ``action``, print its outcome, and return the exit code.

    With ``as_json`` stdout gets exactly one JSON object. What libraries and models print meanwhile goes to stderr (Ray
    prints there that a worker died). Losing stderr does not stop the action. SIGTERM interrupts the action, and then
    the exit code says so, even if the action ends normally.
    """
    err = lasting(sys.stderr)
    with _terminable() as came, redirect_stdout(err), redirect_stderr(err):
        outcome = _attempt(action, tracebacks=tracebacks)
    say(outcome, as_json=as_json)
    return ExitCode.TERMINATED if came.is_set() else outcome.code


@contextmanager
def _terminable() -> Iterator[threading.Event]:
    """Have SIGTERM raise ``Terminated`` in the block and set the event; a second SIGTERM ends the process at once."""
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield came
        return

    def terminate(*_: object) -> NoReturn:
        came.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def _attempt(action: Callable[[], Outcome], *, tracebacks: bool) -> Outcome:
    try:
        return action()
    except SisaError as error:
        if tracebacks and type(error) is SisaError:  # something failed that has no error of its own, such as a task
            traceback.print_exc()
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
    """Print the outcome: JSON to stdout, or text to stdout and problems to stderr.

    JSON is ASCII, so that it is the same in any encoding of stdout. If the reader goes away (``sisa … | head``), the
    rest is dropped without an error.
    """
    problem = outcome.problem
    if as_json:
        _write(sys.stdout, json.dumps(envelope(outcome)) + "\n")
        return
    if outcome.text:
        _write(sys.stdout, outcome.text.rstrip("\n") + "\n")
    if problem:
        lasting(sys.stderr).write(f"error: {problem.message}\n" + (f"  {problem.remedy}\n" if problem.remedy else ""))


def version_outcome() -> Outcome:
    """Return which release this is."""
    text = f"{DISTRIBUTION} {RELEASE}"
    return Outcome(data={"version": RELEASE, "python": platform.python_version()}, text=text)


def open_streams() -> None:
    """Let stdout and stderr accept any text: escape what their encoding lacks, and drop it if they are closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if (
            stream is None
        ):  # started as ``sisa >&-``: no other file may get this descriptor, because libraries write to it
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  open until the end
        elif reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def close_streams() -> None:
    """Flush stdout and stderr and ignore failures, which Python would otherwise turn into its exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _let_go(stream)


def lasting(stream: TextIO | None) -> TextIO:
    """Return ``stream`` wrapped so that writing never fails: once the stream is lost, further text is dropped."""
    return cast("TextIO", _Lasting(stream))


class _Lasting:
    """A text stream for output that the work does not depend on."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lost = stream is None

    def write(self, text: str) -> int:
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        self._try("flush")

    def isatty(self) -> bool:
        return bool(self._try("isatty"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, action: str, *arguments: str) -> object:
        if self._lost:
            return None
        try:
            return getattr(self._stream, action)(*arguments)
        except (OSError, ValueError):  # the reader went away, the terminal hung up, the disk is full; or it was closed
            self._lost = True
            return None


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        _let_go(stream)


def _let_go(stream: TextIO) -> None:
    """Redirect the stream to /dev/null, because Python flushes it once more when it exits."""
    with suppress(OSError, ValueError):  # a stream of a test has no file beneath it
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def envelope(outcome: Outcome) -> dict[str, Any]:
    """Return the JSON object of an outcome."""
    result: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "status": "error" if outcome.problem else "ok"}
    if outcome.data is not None:
        result["data"] = json_value(outcome.data)
    if outcome.problem is not None:
        result["error"] = asdict(outcome.problem)
    return result


def json_value(value: Any) -> Any:
    """Return ``value`` with dataclasses as objects and tuples as lists, ready for JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(name): json_value(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_value(entry) for entry in value]
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
            remedy="Run the command again, or any other that writes: it continues from there.",
        ),
        code=ExitCode.FAILED,
    )


def _system_failed(error: OSError) -> Outcome:
    name = f": {error.filename}" if error.filename else ""
    return Outcome(
        problem=Problem(
            kind="failed",
            message=f"the operating system refused: {error.strerror or type(error).__name__}{name}",
            remedy="Check that the path exists, that there is room, and that you may write there.",
        ),
        code=ExitCode.FAILED,
    )


def _bug(error: Exception) -> Outcome:
    return Outcome(
        problem=Problem(
            kind="internal",
            message=f"an unexpected {type(error).__name__} stopped the command; this is a bug",
            remedy="Set SISA_TRACEBACK=1 to see where, and report it. The store has everything that was committed.",
        ),
        code=ExitCode.FAILED,
    )
