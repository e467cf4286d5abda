"""A task pool in this process: works in any order, pickles arguments and results, and lets attempts die."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from storage.errors import Invalid

_Thing = TypeVar("_Thing")
_Result = TypeVar("_Result")
_Shared = ParamSpec("_Shared")


class PoolCall(NamedTuple):
    """One call of the pool."""

    act: Callable[..., Any]
    things: Sequence[Any]
    shared: tuple[Any, ...]
    results: list[Any]
    result_bytes: list[int]
    """Size of each pickled result."""


@dataclass(slots=True)
class FakeTaskPool:
    """Implements ``shards.slices.parallel_ingest.TaskPool``."""

    order: Callable[[int], Sequence[int]] = range
    """Returns the order in which a number of things are done."""
    deaths: Callable[[int], bool] = lambda _: False
    """Returns whether the first attempt at a thing dies at its end: its result is lost, its objects are left behind."""
    before: Callable[[Callable[..., Any], Sequence[Any]], None] = lambda _, __: None
    """Called with the function and the things, before each call."""
    dead: list[str] = field(default_factory=list)
    """Names of the attempts that died."""
    calls: list[PoolCall] = field(default_factory=list)
    """The calls that ended without an error."""

    def __call__(
        self,
        act: Callable[Concatenate[_Thing, str, _Shared], _Result],
        things: Sequence[_Thing],
        names: Callable[[], str],
        on_result: Callable[[_Result], None],
        /,
        *shared: _Shared.args,
        **more: _Shared.kwargs,
    ) -> list[_Result]:
        """Do everything, then raise the error of the first failing thing, if any."""
        self.before(act, things)
        results: dict[int, bytes] = {}
        errors: dict[int, Exception] = {}
        for index in self.order(len(things)):
            if self.deaths(index):
                self.dead.append(names())
                _attempt(act, things[index], self.dead[-1], shared)
            found = _attempt(act, things[index], names(), shared)
            if isinstance(found, Exception):
                errors[index] = found
            else:
                results[index] = found
                on_result(pickle.loads(found))
        if errors:
            raise errors[min(errors)]
        whole = [pickle.loads(results[index]) for index in range(len(things))]
        self.calls.append(PoolCall(act, things, shared, whole, [len(results[index]) for index in range(len(things))]))
        return whole


def _attempt(act: Callable[..., Any], thing: Any, name: str, shared: tuple[Any, ...]) -> bytes | Exception:
    """Return the pickled result, or the error."""
    sent, thing_sent, shared_sent = pickle.loads(pickle.dumps((act, thing, shared)))
    try:
        return pickle.dumps(sent(thing_sent, name, *shared_sent))
    except Invalid as error:
        return error
