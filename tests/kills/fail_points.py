"""Fail points: steps of a command at which its process is struck, from outside the product's code.

A step is one operation of the store that changes something. The process is struck before it, after it or, where a put
goes through a temporary file, within it: with that file still there.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NewType, TypeVar

from storage.objects import ObjectInfo, ObjectKey, ObjectStore, StoredObject, VersionTag

Moment = Literal["before", "within", "after"]
"""When the process is struck: before the step, when only its temporary file exists, or after the step."""

Blow = Literal["kill", "stop"]
"""SIGKILL, or SIGSTOP and later SIGCONT."""

Operation = Literal["put_if_absent", "put_if_match", "delete", "remove_unfinished", "get", "list"]
"""What is asked of a store; the last two change nothing."""

Kind = NewType("Kind", str)
"""The kind of a step, without the random names in it: ``put_if_absent journal/# purged``."""

_Result = TypeVar("_Result")

_DRAWN = (
    (re.compile(r"[0-9a-f]{32,64}|(?<=receipts/index/)[0-9a-f]"), "*"),
    (re.compile(r"\d{20}"), "#"),
    (re.compile(r"\b\d{4,12}\b"), "n"),
)
_EVENT = re.compile(rb'"event":"([a-z_]+)"')


def kind_of(operation: Operation, key: str, payload: bytes = b"") -> Kind:
    """Return the kind of a step; kinds of journal entries are distinguished by the events in them."""
    shape = key
    for pattern, mark in _DRAWN:
        shape = pattern.sub(mark, shape)
    events = [match.decode() for match in _EVENT.findall(payload)] if key.startswith("journal/") else []
    return Kind(" ".join([operation, shape, *dict.fromkeys(events)]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """One blow: at the ``nth`` step of a kind, or of any kind."""

    moment: Moment
    kind: Kind | None = None
    """None: steps of every kind count."""
    looks: bool = False
    """Whether what only looks at the store counts as a step, too."""
    nth: int = 1
    blow: Blow = "kill"

    def to_json(self) -> dict[str, Any]:
        """Return the strike as JSON values."""
        return asdict(self)


@dataclass(slots=True)
class StruckStore:
    """``inner``, whose user is struck."""

    inner: ObjectStore
    strike: Strike | None = None
    steps: list[Kind] = field(default_factory=list)
    """The kinds of all steps that were begun."""
    looks: int = 0
    """How often it was looked at."""
    _matching: int = 0

    @property
    def location(self) -> str:
        """Where the inner store is."""
        return self.inner.location

    def put_if_absent(self, key: ObjectKey, payload: bytes) -> VersionTag:
        """Create the object."""
        return self._step("put_if_absent", key, payload, lambda: self.inner.put_if_absent(key, payload))

    def put_if_match(self, key: ObjectKey, payload: bytes, expected: VersionTag) -> VersionTag:
        """Replace the object."""
        return self._step("put_if_match", key, payload, lambda: self.inner.put_if_match(key, payload, expected))

    def get(self, key: ObjectKey) -> StoredObject:
        """Return the object."""
        return self._step("get", key, b"", lambda: self.inner.get(key))

    def get_durable(self, key: ObjectKey) -> StoredObject:
        """Return the object."""
        return self._step("get", key, b"", lambda: self.inner.get_durable(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Return the objects, listed at once."""
        return iter(self._step("list", prefix, b"", lambda: tuple(self.inner.list(prefix))))

    def delete(self, key: ObjectKey) -> None:
        """Remove the object."""
        self._step("delete", key, b"", lambda: self.inner.delete(key))

    def delete_all(self, keys: Iterable[ObjectKey]) -> None:
        """Remove the objects one after another."""
        for key in keys:
            self.delete(key)

    def unfinished(self, prefix: str) -> Iterator[str]:
        """Yield the inner store's leftovers."""
        return self.inner.unfinished(prefix)

    def remove_unfinished(self, prefix: str) -> int:
        """Remove the inner store's leftovers."""
        if not any(self.inner.unfinished(prefix)):
            return 0
        return self._step("remove_unfinished", prefix, b"", lambda: self.inner.remove_unfinished(prefix))

    def foreign(self) -> Iterator[str]:
        """Yield the inner store's foreign names."""
        return self.inner.foreign()

    def exclusive(self, name: str, holder: str) -> AbstractContextManager[None]:
        """Hold the inner store's right."""
        return self.inner.exclusive(name, holder)

    def _step(self, operation: Operation, key: str, payload: bytes, action: Callable[[], _Result]) -> _Result:
        strike = self._due(operation, kind_of(operation, key, payload))
        if strike is None:
            return action()
        if strike.moment == "before":
            _strike(strike.blow)
        if strike.moment == "within":
            _strike_within(operation, strike.blow)
        try:
            return action()
        finally:  # also where the answer is an error
            if strike.moment == "after":
                _strike(strike.blow)

    def _due(self, operation: Operation, kind: Kind) -> Strike | None:
        """Record the step; return the strike if its moment has come."""
        strike, is_look = self.strike, operation in {"get", "list"}
        if is_look:
            self.looks += 1
        else:
            self.steps.append(kind)
        if strike is None or strike.kind not in {None, kind} or (is_look and not strike.looks):
            return None
        if strike.moment == "within" and not operation.startswith("put_"):
            return None  # only a put has a middle
        self._matching += 1
        return strike if self._matching == strike.nth else None


def _strike(blow: Blow) -> None:
    os.kill(os.getpid(), signal.SIGKILL if blow == "kill" else signal.SIGSTOP)


def _strike_within(operation: Operation, blow: Blow) -> None:
    """Strike in the middle of the put of a local store that comes next.

    The temporary file is there. A created object has its name already, beside that file's; a replaced one is old yet.
    """
    link, rename = os.link, os.rename

    def linked(*args: Any, **options: Any) -> None:
        link(*args, **options)
        os.link = link
        _strike(blow)

    def renamed(*args: Any, **options: Any) -> None:
        os.rename = rename
        _strike(blow)
        rename(*args, **options)

    if operation == "put_if_absent":
        os.link = linked
    else:
        os.rename = renamed
