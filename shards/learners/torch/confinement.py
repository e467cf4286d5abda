"""Confinement: on the thread that builds and trains, a model reads code, installed packages and declared files (E14).

Python's audit hooks see what Python opens. What native code opens by itself they do not see: there the staged folder
helps, in which only declared files lie.

Shape legend: N points, C classes, F features.
"""

from __future__ import annotations

import getpass
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from shards.learners.protocol import Learner, Learning, TellsLoss
from shards.learners.torch.model_code import is_installed, is_ours
from shards.lineage import Lineage
from shards.points import ShardPoints
from shards.specification import ShardId, SliceIndex
from storage.digests import Sha256
from storage.errors import Invalid, SisaError

State = TypeVar("State")

_NETWORK: Final = frozenset(
    {
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostbyaddr",
        "socket.gethostbyname",
        "socket.sendmsg",
        "socket.sendto",
    }
)
_HEARD: Final = _NETWORK | {"open", "ctypes.dlopen", "sqlite3.connect"}
_OF_THE_MACHINE: Final = ("/dev/null", "/proc/cpuinfo", "/sys/devices/system/cpu/")
"""What describes the processor, as the numerics profile does."""

_here = threading.local()


class Confinement:
    """What the code of one model may touch. Applies to the thread that is within ``active``, for so long."""

    def __init__(self, factory: str, folder: Path, staged: Path, allows: Callable[[Path], bool]) -> None:
        """``allows`` tells of a file, besides installed packages, whether the model may read it.

        ``folder`` is the specification's, ``staged`` the one in which the model finds the declared files.
        """
        self._factory = factory
        self._folder = folder
        self._staged = staged
        self._allows = allows
        self._refused: SisaError | None = None
        _watch()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Confine this thread. Raises ``Invalid`` at the end for what was refused, even if the model caught it."""
        outer = getattr(_here, "confinement", None)
        _here.confinement = self
        try:
            yield
        finally:
            _here.confinement = outer
            error, self._refused = self._refused, None
            if error is not None:
                raise error from None

    def refuse(self, fact: str, remedy: str) -> NoReturn:
        """Raise ``Invalid`` here, and once more at the end of ``active``."""
        self._refused = Invalid(f"[model] factory {self._factory!r}: {fact}", remedy)
        raise self._refused

    def check(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Refuse the event unless it is allowed."""
        if event in _NETWORK:
            self.refuse(
                "the model opens a network connection",
                "put what it fetches into a file beside sisa.toml, and name that in [model] files",
            )
        name = arguments[0]
        if name is None or isinstance(name, int) or (event == "open" and not _is_reading(arguments[2])):
            return
        text = os.fsdecode(name)
        if event == "ctypes.dlopen" and "/" not in text:
            return  # a library of the system
        file = Path(os.path.abspath(text))  # noqa: PTH100  code is known by the name by which it was found
        if file.is_relative_to(self._staged) and not file.exists():
            file = self._folder / file.relative_to(self._staged)  # there when it is not declared
        if file.is_file() and not (self._allows(file) or is_installed(file) or is_ours(file) or _is_machine(file)):
            inside = file.is_relative_to(self._folder)
            name = str(file.relative_to(self._folder)) if inside else file.name
            self.refuse(
                f"the model reads {file}, which is not declared",
                f"{'' if inside else f'put it, or a link to it, into the folder {self._folder}, and '}name it in"
                f" [model] files = [{json.dumps(name)}]",
            )


@contextmanager
def unconfined() -> Iterator[None]:
    """Let our own code read on this thread while a model is confined."""
    outer = getattr(_here, "confinement", None)
    _here.confinement = None
    try:
        yield
    finally:
        _here.confinement = outer


def refuse(fact: str, remedy: str) -> NoReturn:
    """Raise ``Invalid``; where this thread's model catches it, once more when it is confined no longer."""
    confinement: Confinement | None = getattr(_here, "confinement", None)
    if confinement is not None:
        confinement.refuse(fact, remedy)
    raise Invalid(f"[model] {fact}", remedy)


class ConfinedLearner:
    """A learner whose model is confined whenever its code runs. Implements ``Learner`` and ``TellsLoss``."""

    def __init__(self, learner: Learner[State], confinement: Confinement) -> None:
        self._learner: Learner[Any] = learner
        self._active = confinement.active

    def initial(self, shard: ShardId) -> Any:
        """See ``Learner.initial``."""
        with self._active():
            return self._learner.initial(shard)

    def learn(self, state: Any, points: ShardPoints, shard: ShardId, slice_: SliceIndex) -> Learning[Any]:
        """See ``Learner.learn``."""
        learning = self._learner.learn(state, points, shard, slice_)
        while True:
            with self._active():
                ended, value = _next(learning)
            if ended:
                return value
            yield value

    def epochs(self, slice_: SliceIndex) -> int:
        """See ``Learner.epochs``."""
        return self._learner.epochs(slice_)

    def steps(self, points: ShardPoints, slice_: SliceIndex) -> int:
        """See ``Learner.steps``."""
        return self._learner.steps(points, slice_)

    def loss(self) -> float | None:
        """See ``TellsLoss.loss``."""
        return self._learner.loss() if isinstance(self._learner, TellsLoss) else None

    def probabilities(self, state: Any, features_NF: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """See ``Learner.probabilities``."""
        with self._active():
            return self._learner.probabilities(state, features_NF)

    def digest(self, state: Any) -> Sha256:
        """See ``Learner.digest``."""
        return self._learner.digest(state)

    def to_bytes(self, state: Any, lineage: Lineage) -> bytes:
        """See ``Learner.to_bytes``."""
        with self._active():
            return self._learner.to_bytes(state, lineage)

    def from_bytes(self, payload: bytes, shard: ShardId) -> Any:
        """See ``Learner.from_bytes``."""
        with self._active():
            return self._learner.from_bytes(payload, shard)


def _next(learning: Generator[int, None, Any]) -> tuple[bool, Any]:
    """Return whether the learning has ended, and its next value or result."""
    try:
        return False, next(learning)
    except StopIteration as end:
        return True, end.value


@cache  # once a process: an audit hook stays for good
def _watch() -> None:
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _HEARD:
        return
    confinement = getattr(_here, "confinement", None)
    if confinement is not None:
        with unconfined():
            confinement.check(event, arguments)


def _is_reading(flags: int) -> bool:
    """Return whether a file opened with ``flags`` can be read, and was there before."""
    return flags & os.O_ACCMODE != os.O_WRONLY and flags & (os.O_CREAT | os.O_EXCL) != os.O_CREAT | os.O_EXCL


def _is_machine(file: Path) -> bool:
    return str(file).startswith(_OF_THE_MACHINE) or file.is_relative_to(_compiler_cache())


@cache
def _compiler_cache() -> Path:
    """Return where torch keeps what it has compiled: code that is named by what it was made from."""
    name = "root"
    with suppress(KeyError, OSError):
        name = getpass.getuser()
    return Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or Path(tempfile.gettempdir()) / f"torchinductor_{name}")
