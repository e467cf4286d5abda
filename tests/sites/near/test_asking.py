"""Asking several sites: quorum, time-out, what is late, what is nonsense, what leaves meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cluster.sites.batch_predict import FileAnswering
from cluster.sites.fan_out import SitesFanOut
from cluster.sites.membership import RosterRegister
from coordinator.sites import SiteAnswer, SiteStanding, history_of
from storage.digests import sha256
from storage.errors import InvariantBroken, Unavailable
from storage.stores.memory import MemoryStore
from tests.doubles.time_and_names import VirtualClock
from tests.doubles.user_folder import as_table, small_points
from tests.sites.near.site_folders import SITES, SiteFolders

POINTS = np.zeros((2, 16), np.float32)
NAMES = ("x*",)
"""A column of lists."""
LONG = 60.0
"""Only how long a test that fails hangs."""


@dataclass(slots=True)
class FakeLink:
    """A site that gives the answers that a test sets, once its ``gate`` is open."""

    name: str
    generation: int = 1
    floor: int = 0
    position: int = 1
    gate: Event = field(default_factory=Event)
    before: Callable[[], None] = lambda: None
    asked: int = 0

    def standing(self, requests: int = 0) -> SiteStanding:
        """Return the site's standing."""
        del requests
        return SiteStanding(
            identity=self.name,
            position=self.position,
            generation=self.generation,
            floor=self.floor,
            requests=0,
            history=history_of(()),
            history_then=history_of(()),
            shards=2,
            features=NAMES,
            width=16,
            model_code=sha256(b""),
            checkpoints=((0, "aa"),),
        )

    def answer(self, features_NF: npt.NDArray[np.float32], names: tuple[str, ...]) -> SiteAnswer:
        """Answer when the gate is open."""
        assert names == NAMES
        self.asked += 1
        self.before()
        assert self.gate.wait(LONG)
        scores = np.full((len(features_NF), 3), 1 / 3, np.float32)
        return SiteAnswer(generation=self.generation, constituents=1, shards=2, scores_NS=scores)

    def close(self) -> None:
        """Let go of nothing."""


class World:
    """A federation whose sites are fakes."""

    def __init__(self, site_folders: SiteFolders, settings: str) -> None:
        site_folders.specify(settings=f"[sites]\n{settings}")
        self.store = MemoryStore(f"office-{id(self)}")
        self.roster = RosterRegister(self.store, VirtualClock())
        self.links: dict[str, Any] = {name: FakeLink(name) for name in SITES}
        for name, link in self.links.items():
            self.roster.join(name)
            link.gate.set()
        self.fan_out = SitesFanOut(site_folders.specification, self.links, self.roster)

    def close(self) -> None:
        """Let everybody go."""
        for link in self.links.values():
            link.gate.set()
        self.fan_out.close()
        self.store.forget()


@pytest.fixture
def world(site_folders: SiteFolders) -> Iterator[Callable[[str], World]]:
    """Make worlds with such ``[sites]`` settings."""
    made: list[World] = []

    def make(settings: str) -> World:
        made.append(World(site_folders, settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_all_answer(world: Callable[[str], World]) -> None:
    """Without trouble everybody takes part, in the order of the specification."""
    answer = world("").fan_out.answer(POINTS, NAMES)
    assert [each.site for each in answer.sites] == list(SITES)
    assert answer.absent == {}


def test_a_slow_site_is_left_out_once_the_quorum_has_answered(world: Callable[[str], World]) -> None:
    """The quorum decides how long an answer takes, not the slowest site."""
    made = world("quorum = 2\ngrace_seconds = 0.0\ntimeout_seconds = 600.0")
    made.links["west"].gate.clear()
    answer = made.fan_out.answer(POINTS, NAMES)
    assert [each.site for each in answer.sites] == ["north", "south"]
    assert answer.absent == {"west": "it has not answered in time"}


def test_a_site_that_is_behind_is_not_asked_again(world: Callable[[str], World]) -> None:
    """Questions to a site that hangs do not pile up; when it answers again it is asked again."""
    made = world("quorum = 2\ngrace_seconds = 0.0")
    made.links["west"].gate.clear()
    answers = [made.fan_out.answer(POINTS, NAMES) for _ in range(7)]
    assert made.links["west"].asked <= 4
    assert answers[-1].absent == {"west": "it is behind with earlier questions"}


def test_a_quorum_that_does_not_come_together(world: Callable[[str], World]) -> None:
    """After the time-out the error says which sites are missing."""
    made = world("timeout_seconds = 0.1")
    made.links["south"].gate.clear()
    with pytest.raises(Unavailable, match="2 of 3 sites answer, and the quorum is 3: south: it has not answered in ti"):
        made.fan_out.answer(POINTS, NAMES)


def test_a_site_that_leaves_while_it_is_asked(world: Callable[[str], World]) -> None:
    """What was withdrawn before the answer was complete is not in it, and the quorum is of those that are left."""
    made = world("")

    def leave() -> None:
        made.roster.withdraw("west", "now")

    made.links["west"].before = leave
    assert [each.site for each in made.fan_out.answer(POINTS, NAMES).sites] == ["north", "south"]


def test_one_file_is_answered_by_the_same_sites_throughout(
    world: Callable[[str], World], site_folders: SiteFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a site's generation changes between two batches, the file gets no answers, and the error says why."""
    monkeypatch.setattr("shards.data.prediction_files._BATCH_BYTES", 1)
    made = world("")
    north = made.links["north"]
    answering = FileAnswering(site_folders.specification, made.fan_out, north.standing)
    table = as_table(small_points(people=1))
    assert answering.predict(table).table().num_rows == table.num_rows
    before = north.asked
    assert before == table.num_rows

    def move_on() -> None:
        north.generation += north.asked == before + 2

    north.before = move_on
    answers = answering.predict(table)
    with pytest.raises(Unavailable, match="have changed while a file was answered"):
        answers.table()


def test_an_erasure_known_here_withdraws_an_answer_on_its_way(world: Callable[[str], World]) -> None:
    """An answer of a generation below the site's known floor has no part, even if the site sends it."""
    made = world("quorum = 2\ngrace_seconds = 60.0")
    assert len(made.fan_out.answer(POINTS, NAMES).sites) == 3
    north = made.links["north"]
    north.floor, north.position = 2, 2
    made.roster.advance("north", north.standing)  # as after an erasure that was submitted here
    answer = made.fan_out.answer(POINTS, NAMES)
    assert [each.site for each in answer.sites] == ["south", "west"]
    assert "set back" in answer.absent["north"]


def test_a_site_that_breaks_its_own_rules_has_no_part(world: Callable[[str], World]) -> None:
    """What a site says of itself, a defect included, is the reason why it is absent; the others answer."""
    made = world("quorum = 1\ngrace_seconds = 60.0")

    def fail() -> None:
        raise InvariantBroken("a defect")

    made.links["north"].before = fail
    assert made.fan_out.answer(POINTS, NAMES).absent == {"north": "a defect"}


def test_a_fault_of_our_own_is_not_passed_over(world: Callable[[str], World]) -> None:
    """An unforeseen error is raised, instead of counting the site as away."""
    made = world("quorum = 1\ngrace_seconds = 60.0")

    def fail() -> None:
        raise ZeroDivisionError("not foreseen")

    made.links["north"].before = fail
    with pytest.raises(ZeroDivisionError, match="not foreseen"):
        made.fan_out.answer(POINTS, NAMES)
