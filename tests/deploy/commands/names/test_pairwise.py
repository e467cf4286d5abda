"""Pairs of features: each kind of request about names, with pauses, batches, new keys and interruptions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import cluster
from tests.deploy.commands.names.test_spellings import federation, renamed
from tests.doubles.user_folder import UserFolder, run, small_points

pytestmark = pytest.mark.slow

Story = Callable[[UserFolder], None]
"""What happens to a federation with Mia, mia and Noah, all of whose requests end as they should."""


def similar(home: UserFolder) -> None:
    """All spellings of Mia are erased, although only one was named."""
    home.json("erase", "--subject", "MIA", "--include-similar", "--request-id", "similar", *extra(home))


def nothing(home: UserFolder) -> None:
    """Nobody is found, and a signed statement says so."""
    home.json("erase", "--subject", "nobody", "--request-id", "nothing", *extra(home))


def comes_back(home: UserFolder) -> None:
    """Noah is erased and then readmitted."""
    home.json("erase", "--subject", "Noah", "--request-id", "gone", *extra(home))
    settle(home)
    back = home.json("readmit", "--subject", "Noah", "--reason", "a new contract", "--request-id", "back")
    assert back.code == 0, back.err


def changes_hands(home: UserFolder) -> None:
    """Noah is erased, and his data points get Zoe as their subject."""
    home.json("erase", "--subject", "Noah", "--request-id", "gone", *extra(home))
    settle(home)
    home.write("train.parquet", renamed(person_003="Mia", person_004="mia", person_005="Zoe", person_006="Zoe"))


STORIES: dict[str, tuple[Story, dict[str, str], int]] = {
    "similar": (similar, {"similar": "complete"}, 112),
    "nothing": (nothing, {"nothing": "refused"}, 120),
    "comes back": (comes_back, {"gone": "complete"}, 116),
    "changes hands": (changes_hands, {"gone": "complete"}, 116),
}
"""By name: the story, the final states of its requests, and the number of data points left."""


def extra(home: UserFolder) -> tuple[str, ...]:
    """Return the options with which the story's requests are submitted."""
    return ("--hold", "a lawsuit") if (home.folder / "held").exists() else ()


def settle(home: UserFolder) -> None:
    """Release what is paused, and carry out everything that waits."""
    for request in home.json("status").data["requests"]:
        if request["held"]:
            run("request", "release", request["request_id"], "--config", str(home.config))
    trained = home.json("train")
    assert trained.code == 0, trained.err


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("way", ["at once", "paused", "until due", "new keys", "interrupted"])
def test_each_with_each(home: UserFolder, story: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However requests are carried out, they end as they should, and what is left is exact and provable."""
    changes = {"erasure__batch": "until_due"} if way == "until due" else {}
    federation(home, renamed(person_003="Mia", person_004="mia", person_005="Noah", person_006="Zoe"), **changes)
    if way == "paused":
        (home.folder / "held").touch()
    if way == "interrupted":
        from coordinator.engine.engine import Engine

        with monkeypatch.context() as patch:
            patch.setattr(Engine, "_issue_receipts", _die)
            home.json("erase", "--subject", "secret-person-001", "--request-id", "first")
    act, ends, points = STORIES[story]
    act(home)
    if way == "new keys":
        assert home.json("keys", "--rotate").code == 0
    settle(home)
    status = home.json("status").data
    found = {each["request_id"]: each["state"] for each in status["requests"] if each["request_id"] != "first"}
    assert found == ends
    assert status["points"] == points - (4 if way == "interrupted" else 0)
    verified = home.json("verify")
    assert verified.code == 0, verified.out
    assert verified.data["receipts"]["checked"] == len(ends) + (story == "comes back") + (way == "interrupted")
    assert home.json("log", "--check").data["sound"]


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def test_only_the_readmitted_come_back_after_everybody_was_erased(home: UserFolder) -> None:
    """After everybody is erased, only new data points of a readmitted subject are accepted."""
    federation(home, small_points())
    with cluster.connect(home.config) as connected:
        assert connected.erase_everyone("withdrawal").points == 120
    assert home.json("readmit", "--subject", "secret-person-001", "--reason", "back", "--request-id", "b").code == 0
    columns = small_points()
    for name, values in small_points().items():
        columns[name] += values[:3]
    columns["id"][-3:] = ["new-0", "new-1", "new-2"]
    home.write("train.parquet", columns)
    assert home.json("train").data["points"] == 1
    assert home.json("verify").code == 0
