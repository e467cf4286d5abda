"""Commands killed by SIGKILL at durable steps: the next one ends as if nothing had happened (D1, D2, D5, E9, E10).

In ``make test`` at one step of each kind; in ``make soak`` at all of them.
``python -m tests.kills`` prints the same kills as a table, and kills at random on demand.
"""

from __future__ import annotations

import pytest

from tests.kills.command_cases import COMMAND_CASES, CaseRunner
from tests.kills.fail_points import Moment
from tests.kills.random_cases import try_kills
from tests.kills.table import CELLS, FAIL_POINTS, FailPoint, try_cell
from tests.volume import one_of_each, seeds_of

pytestmark = [pytest.mark.slow, pytest.mark.volume]

SEEDS = seeds_of(12, few=2)


def test_the_table_is_complete(runner: CaseRunner) -> None:
    """Every kind of durable step that training and erasing take has a row."""
    steps = {kind for name in COMMAND_CASES for kind in runner.reference(name).steps}
    assert steps == {point.kind for point in FAIL_POINTS}
    assert len(CELLS) >= 60


@pytest.mark.parametrize("name", COMMAND_CASES)
def test_the_undisturbed_stories_hold(name: str, runner: CaseRunner) -> None:
    """What interrupted commands are compared with is proved, complete and without residue."""
    outcome = runner.reference(name).outcome
    assert outcome["holds"], outcome["wrong"]
    assert outcome["published"]
    states = {request_id: state for request_id, state, *_ in outcome["requests"]}
    request = COMMAND_CASES[name].request
    assert not request or states[request] == {"erase nobody": "refused", "readmit": "stated"}.get(name, "complete")
    assert outcome["generations"]
    ended = [state for state in states.values() if state in {"complete", "refused", "stated"}]
    assert outcome["receipts"] == outcome["log"] == len(ended)


@pytest.mark.parametrize(
    ("point", "moment"),
    [
        pytest.param(point, moment, id=f"{point.case_name}: {point.name}: {moment}")
        for point, moment in one_of_each(CELLS, kind=lambda cell: cell[0].kind)
    ],
)
def test_a_kill_changes_nothing(point: FailPoint, moment: Moment, runner: CaseRunner) -> None:
    """Killed at the step, the command's work is finished by the next: same bytes, nothing acknowledged lost, nothing
    left over; nothing tainted answers in between.
    """
    try_cell(runner, point, moment)


@pytest.mark.parametrize("seed", SEEDS)
def test_kills_during_recovery_change_nothing(seed: int, runner: CaseRunner) -> None:
    """Killed anywhere, and again while others recover: the end is the same."""
    assert try_kills(runner, seed) >= 1
