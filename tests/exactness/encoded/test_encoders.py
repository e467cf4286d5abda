"""The law over encoded columns: after any erasures the bytes equal those of a run without the erased points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.schedule import minimum_epochs
from shards.specification import ModelSettings, TrainingSettings
from tests.doubles.federation import Point, specification_of
from tests.exactness.strategies import OPTIMIZERS, History, HistoryStep, PlannedErasure
from tests.exactness.test_histories import check_history
from tests.volume import examples, spread

Cells = list[float | str | None]

COLUMNS: dict[str, tuple[dict[str, Any], Cells]] = {
    "number": ({"missing": 0.0, "shift": 2.0, "scale": 3.0, "flag_missing": True}, [0.5, 2.0, 7.25, None]),
    "numbers in texts": ({"missing": 1.0, "null": ["NA", ""]}, ["0.5", "-2", "NA", None]),
    "categories": ({"categories": ["a", "b"], "other": True, "missing": True}, ["a", "b", "c", None]),
    "hash": ({"hash": 7}, ["Lyon", "Oslo", "Rome"]),
    "dates": ({"date": "days", "cycle": ["week", "year"], "scale": 9000.0}, ["1990-05-01", "2020-01-31T12:00:00Z"]),
    "truths": ({"true": ["y"], "false": ["n"], "missing": 0.5}, ["y", "n", None]),
    "words": ({"words": 6, "ngrams": 2}, ["a b a", "", "Hello world"]),
    "plain": ({}, [0.0, 1.0, -2.5]),
}
IDS: dict[str, tuple[dict[str, Any], Cells]] = {
    "tokens": ({"tokens": 3, "vocabulary": 20}, ["a b a", "", "Hello world"]),
    "index": ({"categories": ["a", "b"], "other": True, "as": "index"}, ["a", "b", "c", None]),
    "hashed index": ({"hash": 9, "as": "index"}, ["Lyon", "Oslo", "Rome"]),
}
EMBEDDED = ModelSettings(factory="tests.shards.learners.shaped_models:embedded", arguments={"ids": 21})


@st.composite
def encoded_histories(draw: st.DrawFn, *, are_ids: bool, most_points: int = 30) -> History:
    """Return a random federation with some encoded columns, and steps of erasures, some of them trained again."""
    known = IDS if are_ids else COLUMNS
    chosen = draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=4, unique=True), label="columns")
    declared = [known[name] for name in chosen]
    slices = draw(st.integers(1, 3), label="slices")
    generator = np.random.default_rng(draw(st.integers(0, 2**16), label="data"))
    points = [
        Point(
            id=f"p{number}",
            subject=f"subject-{number // 2}",
            label="ab"[int(generator.integers(2))],
            features=tuple(cells[int(generator.integers(len(cells)))] for _, cells in declared),
        )
        for number in range(draw(st.integers(1, most_points), label="points"))
    ]
    specification = specification_of(
        shards=draw(st.integers(1, 3), label="shards"),
        slices=slices,
        training=TrainingSettings(
            epochs=minimum_epochs(slices),
            batch_size=draw(st.integers(1, 8), label="batch_size"),
            learning_rate=0.1,
            **draw(st.sampled_from(OPTIMIZERS), label="optimizer"),
        ),
        model=EMBEDDED if are_ids else ModelSettings(arguments={"hidden": [4], "dropout": 0.3}),
        features=tuple(f"x{number}" for number in range(len(declared))),
        encode={f"x{number}": options for number, (options, _) in enumerate(declared) if options},
    )
    subjects = st.lists(
        st.sampled_from(sorted({point.subject for point in points})), min_size=1, max_size=3, unique=True
    )
    erasures = st.builds(PlannedErasure, subjects=subjects.map(tuple), ids=st.just(()))
    steps = st.builds(
        HistoryStep, erasures=st.lists(erasures, min_size=1, max_size=2).map(tuple), train_again=st.booleans()
    )
    return History(
        specification=specification,
        points=tuple(points),
        steps=draw(st.lists(steps, min_size=1, max_size=2).map(tuple), label="steps"),
    )


@pytest.mark.volume
@pytest.mark.parametrize("are_ids", [False, True], ids=["numbers", "whole numbers"])
def test_any_history_of_encoded_columns_ends_in_the_bytes_of_a_full_retrain(*, are_ids: bool) -> None:
    """After any erasures every checkpoint has the bytes of a new run on the rest: no encoder remembers anybody (E6)."""

    @settings(max_examples=examples(12, few=5))
    @given(history=encoded_histories(are_ids=are_ids))
    def check(history: History) -> None:
        check_history(history)

    check()


@pytest.mark.slow
@pytest.mark.volume
@pytest.mark.parametrize("are_ids", spread([False, True], 2))
def test_any_longer_history_of_encoded_columns_ends_in_the_bytes_of_a_full_retrain(*, are_ids: bool) -> None:
    """The same over more federations, with more points."""

    @settings(max_examples=examples(100, few=5))
    @given(history=encoded_histories(are_ids=are_ids, most_points=60))
    def check(history: History) -> None:
        check_history(history)

    check()
