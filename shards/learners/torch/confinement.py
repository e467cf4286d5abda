"""Confinement: the thread that builds and trains a model may read only code, packages and declared files (E14).

Python's audit hooks see the files that Python opens, but not those that native code opens by itself. Against native
code there is the staged folder, which contains only declared files.

Shape legend: N points, C classes, F features.
"""

from __future__ import annotations

import getpass
import json
import linecache
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from shards.learners.protocol import Learner, Learning, ReportsLoss, State
from shards.learners.torch.model_code import is_installed, is_own_file
from shards.lineage import Lineage
from shards.points import ShardPoints
from shards.specification import ShardId, SliceIndex
from storage.digests import Sha256
from storage.errors import Invalid, SisaError

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
_WATCHED: Final = _NETWORK | {"open", "ctypes.dlopen", "sqlite3.connect"}
_OF_THE_MACHINE: Final = ("/dev/null", "/proc/cpuinfo", "/sys/devices/system/cpu/")
"""Files that describe the processor, which the numerics profile covers."""

_DEEPEST: Final = 5
"""How many calls ``linecache`` is away from the audit hook, at most: by way of ``tokenize`` and the hook's own."""

_here = threading.local()


class Confinement:
    """What the code of one model may touch. Applies to a thread while it is inside ``active``."""

    def __init__(self, factory: str, folder: Path, staged: Path, allows: Callable[[Path], bool]) -> None:
        """``allows`` returns whether the model may read a file outside installed packages.

        ``folder`` is the specification's folder, ``staged`` the folder in which the model finds the declared files.
        """
        self._factory = factory
        self._folder = folder
        self._staged = staged
        self._allows = allows
        self._refused: SisaError | None = None
        _watch()

    @contextmanager
    def active(self) -> Iterator[None]:
        """Confine this thread. If anything was refused, raise ``Invalid`` at the end, even if the model caught it."""
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
        """Raise ``Invalid`` now, and again at the end of ``active``."""
        self._refused = Invalid(f"[model] factory {self._factory!r}: {fact}", remedy)
        raise self._refused

    def is_allowed(self, name: object) -> bool:
        """Return whether the model may read the file."""
        if not isinstance(name, str | bytes | os.PathLike):
            return True
        file = Path(os.path.abspath(os.fsdecode(name)))  # noqa: PTH100  code is known by its unresolved path
        return self._allows(file) or is_installed(file) or is_own_file(file) or _is_machine(file)

    def check(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Refuse the event unless it is allowed."""
        if event in _NETWORK:
            self.refuse(
                "the model opens a network connection",
                "Put the data that it fetches into a file next to sisa.toml, and name that file in [model] files.",
            )
        name = arguments[0]
        if name is None or isinstance(name, int) or (event == "open" and not _is_reading(arguments[2])):
            return
        text = os.fsdecode(name)
        if event == "ctypes.dlopen" and "/" not in text:
            return  # a system library
        file = Path(os.path.abspath(text))  # noqa: PTH100  code is known by its unresolved path
        if file.is_relative_to(self._staged) and not file.exists():
            file = self._folder / file.relative_to(self._staged)  # the original, which exists but is not declared
        if file.is_file() and not self.is_allowed(file):
            inside = file.is_relative_to(self._folder)
            name = str(file.relative_to(self._folder)) if inside else file.name
            self.refuse(
                f"the model reads {file}, which is not declared",
                f"{'N' if inside else f'Put it, or a link to it, into the folder {self._folder}, and n'}ame it in"
                f" [model] files = [{json.dumps(name)}].",
            )


@contextmanager
def unconfined() -> Iterator[None]:
    """Let our own code read files on this thread while a model is confined."""
    outer = getattr(_here, "confinement", None)
    _here.confinement = None
    try:
        yield
    finally:
        _here.confinement = outer


def refuse_model(fact: str, remedy: str) -> NoReturn:
    """Raise ``Invalid``; if this thread's model catches it, raise it again at the end of the confinement."""
    confinement: Confinement | None = getattr(_here, "confinement", None)
    if confinement is not None:
        confinement.refuse(fact, remedy)
    raise Invalid(f"[model] {fact}", remedy)


class ConfinedLearner:
    """A learner whose model is confined whenever its code runs. Implements ``Learner`` and ``ReportsLoss``."""

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
        """See ``ReportsLoss.loss``."""
        return self._learner.loss() if isinstance(self._learner, ReportsLoss) else None

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
    """Return whether training has ended, and its next value or result."""
    try:
        return False, next(learning)
    except StopIteration as end:
        return True, end.value


@cache  # once per process: an audit hook cannot be removed
def _watch() -> None:
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _WATCHED:
        return
    confinement = getattr(_here, "confinement", None)
    if confinement is not None:
        with unconfined():
            if event == "open" and _shows_source() and not confinement.is_allowed(arguments[0]):
                raise PermissionError("source code is not shown here")  # traceback leaves the line out
            confinement.check(event, arguments)


def _shows_source() -> bool:
    """Return whether ``linecache`` opens a file: it shows code of the callers, such as a script, in a traceback.

    It gets an error that it takes for a missing file, so that a model's own error is not replaced by another one. It
    reads nothing for a model that calls it either.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  the documented way to the caller
    for _ in range(_DEEPEST):
        if frame is None:
            return False
        if frame.f_code.co_filename == linecache.__file__:
            return True
        frame = frame.f_back
    return False


def _is_reading(flags: int) -> bool:
    """Return whether a file opened with ``flags`` is read, and existed before."""
    return flags & os.O_ACCMODE != os.O_WRONLY and flags & (os.O_CREAT | os.O_EXCL) != os.O_CREAT | os.O_EXCL


def _is_machine(file: Path) -> bool:
    return str(file).startswith(_OF_THE_MACHINE) or file.is_relative_to(_compiler_cache())


@cache
def _compiler_cache() -> Path:
    """Return where torch caches compiled code, whose file names are derived from its source."""
    name = "root"
    with suppress(KeyError, OSError):
        name = getpass.getuser()
    return Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or Path(tempfile.gettempdir()) / f"torchinductor_{name}")
