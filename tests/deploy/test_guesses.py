"""Guessed parts: no row number and no id is learned from, people are not taken for groups, numbers not for classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.guesses import Guess, guess_parts
from shards.data.profile import describe_source
from shards.data.sources import open_source, table_source
from storage.errors import Invalid
from tests.doubles.user_folder import run

POINTS = 40

PLAIN: Mapping[str, Sequence[Any]] = {
    "id": [f"p{number}" for number in range(POINTS)],
    "person": [f"u{number % 9}" for number in range(POINTS)],
    "y": [number % 2 for number in range(POINTS)],
    "a": [0.25 * number % 1.5 for number in range(POINTS)],
}


def guessed(columns: Mapping[str, object], **parts: Any) -> Guess:
    """Return what is guessed of these columns."""
    stated: dict[str, Any] = {"id_column": None, "subject_column": None, "label_column": None}
    return guess_parts(describe_source(table_source(pa.table(dict(columns)))), **{**stated, **parts})


def features(guess: Guess) -> list[str]:
    """Return the names of the features."""
    return [column.name for column in guess.features]


@pytest.mark.parametrize(
    "name",
    ["", "Unnamed: 0", "Unnamed: 0_level_0", "Unnamed: 0.1", "__index_level_0__", "index", "level_0", "rownames"],
)
@pytest.mark.parametrize("kept", [range(POINTS), range(1, 3 * POINTS, 3), range(POINTS - 1, -1, -1)])
def test_a_row_number_by_its_name_is_no_feature_and_no_id(name: str, kept: Sequence[int]) -> None:
    """What tools call the number of a row is left out by name, of a filtered or sorted table, too."""
    guess = guessed({name: list(kept), **PLAIN})
    assert features(guess) == ["a"]
    assert guess.left_out == ((name, "a row number"),)
    with pytest.raises(
        Invalid, match="Add a column with a unique id for each data point .*a row number, which another row has"
    ):
        guessed({name: list(kept), **{key: values for key, values in PLAIN.items() if key != "id"}})


@pytest.mark.parametrize(
    "numbers",
    [
        list(range(POINTS)),
        list(range(1, POINTS + 1)),
        [*range(20), *range(20)],
        [n * 7 % POINTS for n in range(POINTS)],
    ],
)
def test_a_row_number_is_known_by_its_values(numbers: list[int]) -> None:
    """Whole numbers that count the rows, or fill a range without repetition, are never features, by any name."""
    guess = guessed({**PLAIN, "sequence": numbers})
    assert features(guess) == ["a"]
    assert [name for name, _ in guess.left_out] == ["sequence"]


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("customer_id", [number % 5 for number in range(POINTS)]),
        ("storeID", [float(number % 7) for number in range(POINTS)]),
        ("account", [300 + 7 * (number % 31) for number in range(POINTS)]),
        ("zip", [10_000 + 37 * number for number in range(POINTS)]),
        ("phone", [4_930_000_000 + number**3 for number in range(POINTS)]),
        ("order number", [number // 1 * 1009 % 5003 for number in range(POINTS)]),
    ],
)
def test_numbers_that_name_something_are_no_features(name: str, numbers: list[float]) -> None:
    """Ids, codes and numbers by which things are called are left out, with the reason."""
    guess = guessed({**PLAIN, name: numbers}, subject_column="person")
    assert features(guess) == ["a"]
    assert guess.left_out == ((name, "numbers that look like ids: they name something and measure nothing"),)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("education_num", [number % 16 for number in range(POINTS)]),
        ("income", [17 + 12_011 * number % 100_003 for number in range(POINTS)]),
        ("rooms", [number % 3 for number in range(POINTS)]),
        ("member", [number % 2 for number in range(POINTS)]),
        ("age", [float(number) for number in range(POINTS)]),
        ("refractive_index", [n % 11 for n in range(POINTS)]),
    ],
)
def test_numbers_that_measure_are_features(name: str, numbers: list[float]) -> None:
    """Few numbers, fractions, and numbers far apart are features."""
    assert features(guessed({**PLAIN, name: numbers})) == ["a", name]


@pytest.mark.parametrize(
    ("more", "subject"),
    [
        ({"customer_type": [n % 3 for n in range(POINTS)]}, "person"),
        ({"customer": [n % 3 for n in range(POINTS)]}, "person"),
        ({"client_plan": [f"plan {n % 12}" for n in range(POINTS)]}, "person"),
        ({"account_id": [f"a{n}" for n in range(POINTS)]}, "person"),
        ({"user_agent": [f"browser {n % 15}" for n in range(POINTS)]}, "person"),
        ({"patientID": [n // 2 for n in range(POINTS)]}, "patientID"),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_better_subject_is_taken(more: dict[str, list[object]], subject: str, is_first: bool) -> None:
    """Groups of people, and names without repetition, stand behind a column of people, wherever they stand."""
    guess = guessed({**more, **PLAIN} if is_first else {**PLAIN, **more})
    assert guess.subject is not None
    assert (guess.subject.name, guess.subject_remark) == (subject, "")


def test_a_group_is_no_subject_even_alone() -> None:
    """A column of groups is drafted as nobody, and one of few names with a question."""
    columns = {name: values for name, values in PLAIN.items() if name != "person"}
    groups = [n % 3 for n in range(POINTS)]
    assert guessed({**columns, "customer_type": groups}).subject is None
    assert guessed({**columns, "user_tariff": groups}).subject is None
    guess = guessed({**columns, "customer": groups})
    assert guess.subject is not None
    assert guess.subject_remark == "only 3 values in 40 data points: does it name people?"


def test_addresses_are_people_whatever_the_column_is_called() -> None:
    """Where every value is an e-mail address, the column names people."""
    columns = {name: values for name, values in PLAIN.items() if name != "person"}
    guess = guessed({**columns, "contact": [f"w{n % 9}@example.org" for n in range(POINTS)]})
    assert guess.subject is not None
    assert guess.subject.name == "contact"
    assert guessed({**columns, "contact": ["w@example.org", *["nobody"] * (POINTS - 1)]}).subject is None


def test_why_there_is_no_subject_is_said() -> None:
    """A column of people that cannot be taken is named with the reason."""
    columns = {name: values for name, values in PLAIN.items() if name != "person"}
    guess = guessed({**columns, "user_id": [None, *[f"u{n % 7}" for n in range(POINTS - 1)]]})
    assert guess.subject is None
    assert guess.subject_remark == "'user_id' is empty in 1 data points: every data point needs a subject"
    assert "'user_id' holds numbers with a point" in guessed({**columns, "user_id": [1.0, 2.0] * 20}).subject_remark


@pytest.mark.parametrize(
    "numbers",
    [
        [151.0 + 3 * number for number in range(POINTS)],
        [100 + number % 25 for number in range(POINTS)],
        [0.5 * (number % 4) for number in range(POINTS)],
        [1990 + number % 18 for number in range(20)],
    ],
)
@pytest.mark.parametrize("stated", [{}, {"label_column": "y"}])
def test_numbers_are_a_target_of_their_own(numbers: list[float], stated: dict[str, str]) -> None:
    """A label of many numbers or of fractions is a number to predict, and not a set of classes."""
    points = len(numbers)
    columns: dict[str, object] = {"id": [f"p{n}" for n in range(points)], "sex": ["f", "m"] * (points // 2)}
    guess = guessed({**columns, "a": [0.5] * points, "y": numbers}, **stated)
    assert guess.label is not None
    assert (guess.label.name, guess.target) == ("y", "number")


def test_names_are_no_classes() -> None:
    """Texts of which hardly any occurs twice are refused as labels; ids and people are not proposed as such."""
    columns = {**PLAIN, "note": [f"n{n}" for n in range(POINTS)], "shop_id": [n % 4 for n in range(POINTS)]}
    with pytest.raises(Invalid, match=r"holds 40 different texts .*, not classes .*: 'y'\. Numbers to predict: 'a'\.$"):
        guessed(columns, label_column="note")
    with pytest.raises(Invalid, match=r"looks like a label .*could be one: 'sex'\. Numbers to predict: 'a'\.$"):
        guessed({**{name: values for name, values in columns.items() if name != "y"}, "sex": ["f", "m"] * 20})


@pytest.mark.parametrize("first", [0, 1])
def test_coded_classes_may_be_many(first: int) -> None:
    """Whole numbers from 0 or 1 on without a gap are codes of classes."""
    numbers = [first + n % 26 for n in range(260)]
    columns = {"id": [f"p{n}" for n in range(260)], "a": [0.5] * 260}
    label = guessed({**columns, "class": numbers}).label
    assert label is not None
    assert len(label.values) == 26


def test_a_label_that_fits_is_preferred() -> None:
    """Where a column called target is a number, one called class is the label."""
    guess = guessed({**PLAIN, "target": [151 + 3 * n for n in range(POINTS)]})
    assert guess.label is not None
    assert guess.label.name == "y"


def test_clusters_have_no_label() -> None:
    """No column is one, not even y, which may be a coordinate; a column called label is left out."""
    guess = guessed({**PLAIN, "label": ["cat", "dog"] * 20}, labelled=False)
    assert (guess.label, guess.target, features(guess)) == (None, "cluster", ["y", "a"])
    assert dict(guess.left_out) == {"label": "by its name a label, which the learner does without"}


@settings(deadline=None)
@given(st.integers(1002, 9000), st.integers(0, 10_000), st.integers(1, 1000))
def test_a_column_that_repeats_is_no_id(points: int, position: int, further: int) -> None:
    """However many data points there are, and wherever they stand, two of the same id are found."""
    ids = [f"p{number}" for number in range(points)]
    ids[(position + further) % points] = ids[position % points]
    columns: dict[str, object] = {"id": ids, "y": [n % 2 for n in range(points)], "a": [0.5] * points}
    with pytest.raises(Invalid, match="no column looks like a unique id .*'id': holds values that occur twice"):
        guessed(columns)
    with pytest.raises(Invalid, match="the id column holds ids that occur twice"):
        guessed(columns, id_column="id")


def test_ids_of_neighbouring_numbers_do_not_repeat() -> None:
    """Whole numbers that a float or a hash would take for the same are two."""
    ids = [2**60, 2**60 + 1, -1, -2, *range(POINTS - 4)]
    assert guessed({**PLAIN, "id": ids}).id.name == "id"


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (pa.array([[[1.0]]] * POINTS), "lists of lists: write one flat list of numbers for each data point"),
        (pa.array([[1.0], [1.0, 2.0]] * (POINTS // 2)), "lists of different lengths, 1 to 2"),
        (
            pa.array([[]] * POINTS, pa.list_(pa.float32())),
            "lists that are empty or hold NaN, infinity or no value, in 40",
        ),
        (pa.array([[1.0, None]] * POINTS), "lists that are empty or hold NaN, infinity or no value, in 40"),
        (pa.array([["a"]] * POINTS), "type list<item: string>, which is not a number"),
        (pa.array([0] * POINTS, pa.time32("s")), "type time32[s]"),
        (pa.array([float("inf"), *[1.0] * (POINTS - 1)]), "NaN or infinite in 1 of 40 data points"),
        (pa.array([1e39, *[1.0] * (POINTS - 1)]), "NaN or infinite in 1 of 40 data points"),
    ],
)
def test_what_train_would_refuse_is_not_drafted(column: pa.Array, reason: str) -> None:
    """Nested and uneven lists, dates, NaN and infinity are left out with a reason; alone, they are refused."""
    guess = guessed({**PLAIN, "image": column})
    assert features(guess) == ["a"]
    assert dict(guess.left_out)["image"].startswith(reason)
    with pytest.raises(Invalid, match=r"no column of numbers is left for features\. .*'image': "):
        guessed({**{name: values for name, values in PLAIN.items() if name != "a"}, "image": column})


@pytest.mark.parametrize("late", ["12a", "none of them"])
def test_a_late_cell_of_text_is_seen(tmp_path: Path, late: str) -> None:
    """A CSV column of numbers with one cell of text is not a feature, even if types were guessed from other cells."""
    rows = [f"p{number},{number % 2},{number % 7},{number % 7}.5" for number in range(100_000)]
    text = "\n".join(["id,y,whole,part", *rows, f"q1,0,{late},1.5", f"q2,1,3,{late}", ""])
    (tmp_path / "d.csv").write_text(text, encoding="utf-8")
    found = describe_source(open_source("d.csv", tmp_path))
    with pytest.raises(Invalid, match="'whole': numbers, but for some cells; 'part': numbers, but for some cells"):
        guess_parts(found, id_column=None, subject_column=None, label_column=None)


def test_two_columns_of_one_name_are_refused() -> None:
    """It would not be clear which of them is meant."""
    table = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(Invalid, match="two columns have the same name"):
        describe_source(table_source(table))


def test_the_command_says_what_it_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was guessed, and what was left out and why, is printed, and part of the JSON."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"__index_level_0__": list(range(POINTS)), **PLAIN}), "people.parquet")
    said = run("init", "people.parquet")
    assert "id 'id'; subject 'person'\nlabel 'y' of 2 classes\n1 feature: 'a'\n" in said.out
    assert "left out: '__index_level_0__' (a row number)" in said.out
    found = json.loads(run("init", "people.parquet", "--force", "--json").out)["data"]
    assert found["left_out"] == {"__index_level_0__": "a row number"}
    assert (found["id"], found["subject"], found["features"]) == ("id", "person", ["a"])


def test_ids_that_repeat_name_people() -> None:
    """A column of ids that occur several times, beside a unique one, is the subject even if it does not say whose."""
    columns = {**{name: values for name, values in PLAIN.items() if name not in {"id", "person"}}}
    ids = {"point_id": PLAIN["id"], "id": [n // 3 for n in range(POINTS)]}
    assert [each.name for each in [guessed({**ids, **columns}).subject] if each] == ["id"]
    shop = guessed({"point_id": PLAIN["id"], "shop_id": ids["id"], **columns})
    assert shop.subject is None


def test_groups_are_no_people() -> None:
    """Texts about members and households with few values are features; many data points for each value are remarked."""
    columns = {"id": [f"p{n}" for n in range(4000)], "y": [n % 2 for n in range(4000)], "a": [0.5] * 4000}
    groups = {"union_member": [("yes", "no", "never")[n % 3] for n in range(4000)]}
    guess = guessed({**columns, **groups})
    assert guess.subject is None
    assert [encoder.column for encoder in guess.encoders] == ["union_member"]
    assert guess.encoders[0].options["categories"] == ["never", "no", "yes"]
    households = guessed({**columns, "household": [f"kind {n % 4}" for n in range(4000)], "x": [0.5] * 4000})
    assert households.subject_remark == "only 4 values in 4000 data points: does it name people?"


def test_many_points_for_each_of_more_values_are_remarked() -> None:
    """Twelve values with a thousand data points each hardly name people."""
    count = 12_000
    columns = {"id": [f"p{n}" for n in range(count)], "y": [n % 2 for n in range(count)], "a": [0.5] * count}
    guess = guessed({**columns, "household": [f"kind {n % 12}" for n in range(count)]})
    assert guess.subject_remark == "only 12 values in 12000 data points: does it name people?"
