"""Every error of every room survives the way between processes."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
from collections.abc import Iterator

import pytest

from storage.errors import SisaError

ROOMS = ("storage", "shards", "coordinator", "cluster", "deploy")
KINDS = {
    "failed",
    "invalid",
    "conflict",
    "fenced",
    "unavailable",
    "outcome_unknown",
    "corrupt",
    "invariant_broken",
    "missing",
}
CONTEXT: dict[str, str | int] = {"shard": 3, "key": "folder/object"}


def descendants(kind: type[SisaError]) -> Iterator[type[SisaError]]:
    """``kind`` and every class below it."""
    yield kind
    for child in kind.__subclasses__():
        yield from descendants(child)


def all_errors() -> list[type[SisaError]]:
    """Every error class of ours, once every module of every room is loaded."""
    for room in ROOMS:
        package = importlib.import_module(room)
        for module in pkgutil.walk_packages(package.__path__, f"{room}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    ours = {error for error in descendants(SisaError) if error.__module__.partition(".")[0] in ROOMS}
    return sorted(ours, key=lambda error: f"{error.__module__}.{error.__qualname__}")


ERRORS = all_errors()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("error", ERRORS)
def test_every_error_pickles(error: type[SisaError], protocol: int) -> None:
    """Type, text and fields are the same on the other side, for every error of every room."""
    raised = error("the fact", "The remedy.", **CONTEXT)
    again = pickle.loads(pickle.dumps(raised, protocol))
    assert type(again) is error
    assert str(again) == str(raised) == "the fact [shard=3 key=folder/object]. The remedy."
    assert (again.fact, again.remedy, again.context) == ("the fact", "The remedy.", CONTEXT)
    assert again.args == raised.args


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_copies(error: type[SisaError]) -> None:
    """A copy is the same error: executors and test tools copy errors too."""
    for again in (copy.copy(error("fact")), copy.deepcopy(error("fact"))):
        assert type(again) is error
        assert str(again) == "fact"


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_one_of_the_kinds(error: type[SisaError]) -> None:
    """A room may name a thing; it may not invent another reaction."""
    assert error.kind in KINDS
    assert error.__doc__


def test_the_errors_of_storage_are_found() -> None:
    """The search finds at least what storage defines."""
    names = {error.__name__ for error in ERRORS}
    assert {"SisaError", "Fenced", "OutcomeUnknown", "ObjectExists", "StoreFull", "WriterBusy"} <= names
