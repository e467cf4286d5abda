"""A crew in this process: things done in any order, through pickles, with attempts that die."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from storage.errors import Invalid

_Thing = TypeVar("_Thing")
_Result = TypeVar("_Result")
_Shared = ParamSpec("_Shared")


class Shift(NamedTuple):
    """One use of a crew."""

    act: Callable[..., Any]
    things: Sequence[Any]
    shared: tuple[Any, ...]
    results: list[Any]
    result_bytes: list[int]
    """Of each result as it crosses between processes."""


@dataclass(slots=True)
class FakeCrew:
    """Implements ``shards.slices.parallel_ingest.Crew``."""

    order: Callable[[int], Sequence[int]] = range
    """Returns in which order so many things are done."""
    deaths: Callable[[int], bool] = lambda _: False
    """Whether the first attempt at a thing dies at its very end, its result lost and its objects left behind."""
    before: Callable[[Callable[..., Any], Sequence[Any]], None] = lambda _, __: None
    """Told what is about to be done."""
    dead: list[str] = field(default_factory=list)
    """Names of the attempts that died."""
    shifts: list[Shift] = field(default_factory=list)
    """What was done without an error."""

    def __call__(
        self,
        act: Callable[Concatenate[_Thing, str, _Shared], _Result],
        things: Sequence[_Thing],
        names: Callable[[], str],
        told: Callable[[_Result], None],
        /,
        *shared: _Shared.args,
        **more: _Shared.kwargs,
    ) -> list[_Result]:
        """Do everything, then raise the error of the first thing that has one."""
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
                told(pickle.loads(found))
        if errors:
            raise errors[min(errors)]
        whole = [pickle.loads(results[index]) for index in range(len(things))]
        self.shifts.append(Shift(act, things, shared, whole, [len(results[index]) for index in range(len(things))]))
        return whole


def _attempt(act: Callable[..., Any], thing: Any, name: str, shared: tuple[Any, ...]) -> bytes | Exception:
    """Return the pickled result, or the error."""
    sent, thing_sent, shared_sent = pickle.loads(pickle.dumps((act, thing, shared)))
    try:
        return pickle.dumps(sent(thing_sent, name, *shared_sent))
    except Invalid as error:
        return error
