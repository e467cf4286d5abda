"""``sisa init``: the draft is right where the data are plain, is read as it stands, and asks where it cannot guess."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config.specification import FederationSpecification, read_specification
from deploy.initialise import column_globs, draft_specification, write_specification
from shards.data.prediction_files import feature_batches
from shards.data.sources import open_source
from storage.errors import Conflict, Invalid

PLAIN: Mapping[str, Sequence[Any]] = {
    "id": [f"p{number}" for number in range(60)],
    "user_id": [f"u{number % 20}" for number in range(60)],
    "label": [number % 3 for number in range(60)],
    "age": [float(number) for number in range(60)],
    "x0": [0.5] * 60,
    "x1": [0.5] * 60,
    "x2": [0.5] * 60,
    "x3": [0.5] * 60,
}


def drafted(
    folder: Path, columns: Mapping[str, object], *, file: str = "points.parquet", **parts: str
) -> FederationSpecification:
    """Write the columns, draft a specification, write it beside them and read it."""
    pq.write_table(pa.table(dict(columns)), folder / file)
    text = draft_specification(file, folder, **parts).text  # type: ignore[arg-type]
    (folder / "sisa.toml").write_text(text, encoding="utf-8")
    return read_specification(folder / "sisa.toml")


def write_csv(path: Path, columns: Mapping[str, Any]) -> None:
    """Write the columns as Python's own CSV writer spells them."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def without(*names: str, **more: object) -> dict[str, object]:
    """Return the plain columns without some and with others."""
    return {name: values for name, values in PLAIN.items() if name not in names} | more


def test_plain_data(tmp_path: Path) -> None:
    """Id, subject, label, features and classes are found by name and type."""
    specification = drafted(tmp_path, PLAIN)
    assert specification.name == "points"
    data = specification.data
    assert (data.train, data.id, data.subject, data.label) == ("points.parquet", "id", "user_id", "label")
    assert data.features == ("age", "x*")
    assert data.classes == ("0", "1", "2")
    assert data.scale == (100.0, 1.0, 1.0, 1.0, 1.0)


def test_csv_is_drafted_as_well(tmp_path: Path) -> None:
    """A CSV file gives the same draft as Parquet."""
    write_csv(tmp_path / "points.csv", PLAIN)
    text = draft_specification("points.csv", tmp_path).text
    pq.write_table(pa.table(dict(PLAIN)), tmp_path / "points.parquet")
    assert text == draft_specification("points.parquet", tmp_path).text.replace("points.parquet", "points.csv")


@pytest.mark.parametrize("labels", [[0.0, 1.0, 2.0], [True, False, False], [3, 2, 1], ["b", "a", "b"]])
def test_a_csv_draft_reads_the_data_as_parquet_does(labels: list[object], tmp_path: Path) -> None:
    """Labels and features of every kind, truth values too, are drafted and read alike from CSV and Parquet."""
    columns = without("label", label=labels * 20, smokes=[True, False, True] * 20)
    data = drafted(tmp_path, columns).data
    write_csv(tmp_path / "points.csv", columns)
    text = draft_specification("points.csv", tmp_path).text
    assert text.replace("points.csv", "points.parquet") == (tmp_path / "sisa.toml").read_text(encoding="utf-8")
    assert "smokes" in data.features
    sources = [open_source(name, tmp_path) for name in ("points.csv", "points.parquet")]
    (of_csv,), (of_parquet,) = (list(feature_batches(source, data, 6, labelled=True)) for source in sources)
    assert of_csv.labels_N is not None
    assert of_parquet.labels_N is not None
    assert of_csv.labels_N.tolist() == of_parquet.labels_N.tolist()
    assert of_csv.features_NF.tolist() == of_parquet.features_NF.tolist()


def test_the_drafted_store_is_no_data(tmp_path: Path) -> None:
    """What lies where the draft puts the store is not looked at."""
    for name in ("points.parquet", "federation/slice.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pq.write_table(pa.table(dict(PLAIN)), tmp_path / name)
    assert "from 60 data points" in draft_specification(".", tmp_path).text
    assert 'store = "./federation"' in draft_specification("*.parquet", tmp_path).text
    with pytest.raises(Invalid, match=r"a store's own files are not data: federation"):
        draft_specification("federation", tmp_path)


def test_numeric_classes_are_sorted_as_numbers(tmp_path: Path) -> None:
    """Class 10 comes after class 9."""
    columns = without("label", label=[number % 12 for number in range(60)])
    assert drafted(tmp_path, columns).data.classes[-3:] == ("9", "10", "11")


@pytest.mark.parametrize(
    ("column", "part", "found"),
    [
        ("uuid", "id", "uuid"),
        ("picture_id", "id", "picture_id"),
        ("patient", "subject", "patient"),
        ("customer_number", "subject", "customer_number"),
        ("Target", "label", "Target"),
        ("y", "label", "y"),
        ("outcome", "label", "outcome"),
    ],
)
def test_usual_names_are_known(tmp_path: Path, column: str, part: str, found: str) -> None:
    """Ids, subjects and labels are found under their usual names."""
    old = {"id": "id", "subject": "user_id", "label": "label"}[part]
    specification = drafted(tmp_path, without(old, **{column: PLAIN[old]}))
    assert getattr(specification.data, part) == found


@pytest.mark.parametrize(
    ("column", "form"),
    [("email", "email"), ("E-Mail", "email"), ("contact_email_address", "email"), ("user_id", "trimmed")],
)
def test_a_form_is_proposed(tmp_path: Path, column: str, form: str) -> None:
    """Addresses are compared without regard to case, other names trimmed; the draft says what else there is."""
    specification = drafted(tmp_path, without("user_id", **{column: PLAIN["user_id"]}))
    assert (specification.data.subject, specification.data.subject_form) == (column, form)


def test_without_a_subject_every_point_is_its_own(tmp_path: Path) -> None:
    """Where no column names persons, the subject is left to its default and the draft says how to state it."""
    specification = drafted(tmp_path, without("user_id"))
    assert specification.data.subject is None
    assert '# subject = "user_id"' in (tmp_path / "sisa.toml").read_text(encoding="utf-8")


def test_a_unique_user_id_may_be_the_id(tmp_path: Path) -> None:
    """Where the only id is a person's, unique per data point, it is the id."""
    assert drafted(tmp_path, without("id", "user_id", user_id=PLAIN["id"])).data.id == "user_id"


def test_stated_columns_win(tmp_path: Path) -> None:
    """Columns given by options are used, regardless of their names."""
    columns = without(city=["a", "b"] * 30, code=PLAIN["id"], house=[f"h{n % 7}" for n in range(60)])
    data = drafted(tmp_path, columns, label_column="city", id_column="code", subject_column="house").data
    assert (data.id, data.subject, data.label, data.classes) == ("code", "house", "city", ("a", "b"))


def test_what_is_left_out_is_reported(tmp_path: Path) -> None:
    """Columns of one text, or without any value, are left out of the features, and the draft lists them."""
    specification = drafted(tmp_path, without(note=["n"] * 60, gap=pa.array([None] * 60, pa.float64())))
    assert specification.data.features == ("age", "x*")
    text = (tmp_path / "sisa.toml").read_text(encoding="utf-8")
    assert '# left out of features: "note" (text)\n' in text
    assert '# left out of features: "gap" (no value in 60 of 60 data points)\n' in text


@pytest.mark.parametrize(
    ("values", "kind", "scale"),
    [
        ([0, 200], pa.uint8(), 255.0),
        ([0, 16], pa.uint8(), 16.0),
        ([0, 9], pa.uint8(), 16.0),
        ([0, 1], pa.uint8(), 1.0),
        ([0, 255], pa.int64(), 255.0),
        ([0, 300], pa.int64(), 1000.0),
        ([-1, 255], pa.int64(), 1000.0),
        ([0, 99], pa.int64(), 100.0),
        ([0, 9], pa.int64(), 1.0),
        ([0, 1000], pa.int64(), 1000.0),
    ],
)
def test_scale_of_bytes(tmp_path: Path, values: list[int], kind: pa.DataType, scale: float) -> None:
    """Bytes are brought to 0 .. 1 by a fixed constant, other large numbers to about -1 .. 1 by a power of ten."""
    pixels = {f"px_{number}": pa.array(values * 30, kind) for number in range(5)}
    data = drafted(tmp_path, without("age", "x0", "x1", "x2", "x3") | pixels).data
    assert (data.features, data.scale) == (("px_*",), scale)


def test_a_list_column_is_the_features(tmp_path: Path) -> None:
    """Where there are no columns of numbers, a column of lists is taken."""
    lists = pa.array([[1, 2]] * 60, pa.list_(pa.uint8(), 2))
    data = drafted(tmp_path, without("age", "x0", "x1", "x2", "x3", embedding=lists)).data
    assert (data.features, data.scale) == (("embedding",), 255.0)


def test_lists_of_other_things_are_not_drafted(tmp_path: Path) -> None:
    """Lists of lists and lists of texts are left out; if nothing else remains, the error says what a feature may be."""
    images = pa.array([[[1, 2], [3, 4]]] * 60)
    words = pa.array([["a", "b"]] * 60)
    assert drafted(tmp_path, without(image=images, words=words)).data.features == ("age", "x*")
    with pytest.raises(
        Invalid, match=r"no column of numbers is left for features\. .*one flat list of numbers for each data point"
    ):
        drafted(tmp_path, without("age", "x0", "x1", "x2", "x3", image=images, words=words))


@pytest.mark.parametrize(
    ("points", "shards", "slices", "epochs"), [(4, 1, 1, 40), (100, 1, 5, 40), (600, 2, 5, 40), (20_000, 5, 5, 20)]
)
def test_sizes_follow_the_number_of_points(tmp_path: Path, points: int, shards: int, slices: int, epochs: int) -> None:
    """Few data points get few shards and slices, and more epochs."""
    numbers = range(points)
    columns = {"id": list(numbers), "label": [number % 2 for number in numbers], "a": [0.5] * points}
    specification = drafted(tmp_path, columns)
    assert (specification.partition.shards, specification.partition.slices) == (shards, slices)
    assert specification.training.epochs == epochs


def test_paths_are_relative_to_the_specification(tmp_path: Path) -> None:
    """Data below the specification's folder are named relative to it, others by their full path; name from either."""
    (tmp_path / "digits").mkdir()
    pq.write_table(pa.table(dict(PLAIN)), tmp_path / "digits" / "train.parquet")
    text = draft_specification("train.parquet", tmp_path, base=tmp_path / "digits").text
    assert 'name  = "digits"' in text
    assert 'train    = "digits/train.parquet"' in text
    text = draft_specification("*.parquet", tmp_path / "elsewhere", base=tmp_path / "digits").text
    assert f'train    = "{tmp_path.as_posix()}/digits/*.parquet"' in text


@pytest.mark.parametrize("folder", [".", "below", "elsewhere"])
def test_a_draft_names_a_glob_in_a_folder_of_any_name(tmp_path: Path, folder: str) -> None:
    """What a glob drafted from a folder with glob characters in its name matches is what was looked at."""
    base, home = tmp_path / "a[1]" / "b*", (tmp_path / "a[1]" / folder)
    for path in (base, home, tmp_path / "a[1]" / "bc"):
        path.mkdir(parents=True, exist_ok=True)
    for path in (base, tmp_path / "a[1]" / "bc"):
        pq.write_table(pa.table(dict(PLAIN)), path / "points.parquet")
    (home / "sisa.toml").write_text(draft_specification("*.parquet", home, base=base).text, encoding="utf-8")
    files = open_source(read_specification(home / "sisa.toml").data.train, home).files
    assert [file.path for file in files] == [base / "points.parquet"]


@pytest.mark.parametrize(
    ("columns", "parts", "text"),
    [
        (
            without("label"),
            {},
            r"no column looks like a label .*Name it with --label\. Numbers to predict: 'age'\.$",
        ),
        (
            without("label", "age"),
            {},
            r"no column looks like a label .*Add a column with each data point's class or number",
        ),
        (without("label"), {"label_column": "labels"}, r"there is no column 'labels' .*Name one of 'id', 'user_id'"),
        (PLAIN, {"label_column": "labels"}, r"there is no column 'labels' .*Did you mean 'label'\?"),
        (PLAIN, {"label_column": "x0"}, "label column holds 0 classes"),
        (without("label", label=[1] * 60), {}, "label column holds 1 classes"),
        (without("label", label=[None, *[1] * 59]), {}, "label column holds nulls"),
        (without("id"), {}, "no column looks like a unique id .*Add a column with a unique id for each data point"),
        (
            without("id", sample=PLAIN["id"], place=PLAIN["id"]),
            {},
            r"no column looks like a unique id .*Name it with --id\. Columns that could be one: 'sample', 'place'\.",
        ),
        (PLAIN, {"id_column": "user_id"}, "holds 20 distinct ids for 60 data points .*Name a unique one with --id"),
        (PLAIN, {"id_column": "age"}, "id column must hold texts or whole numbers, and no nulls"),
        ({"id": ["a", "b"], "label": [0, 1], "note": ["n", "m"]}, {}, "no column of numbers is left for features"),
        ({name: values[:0] for name, values in PLAIN.items()}, {}, "the data hold no data point"),
    ],
)
def test_what_cannot_be_guessed_is_asked(
    tmp_path: Path, columns: Mapping[str, object], parts: dict[str, str], text: str
) -> None:
    """Where a part cannot be guessed or a stated column does not fit, the error names the option to use."""
    with pytest.raises(Invalid, match=text):
        drafted(tmp_path, columns, **parts)


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8) | st.from_regex(
    r"[a-z*\[\]?]{0,2}[0-9]{1,2}", fullmatch=True
)


@given(st.lists(names, min_size=1, max_size=30, unique=True), st.integers(0, 30))
def test_globs_match_just_the_chosen(columns: list[str], cut: int) -> None:
    """Names and globs together match every chosen column and no other, regardless of their names."""
    chosen, others = columns[:cut], columns[cut:]
    found = [
        {name for name in columns if name == pattern or (pattern not in columns and fnmatchcase(name, pattern))}
        for pattern in column_globs(chosen, others)
    ]
    assert set().union(*found) == set(chosen)


@given(name=names, value=names, other=names)
def test_any_names_make_a_readable_draft(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: str, other: str
) -> None:
    """Column names and classes with quotes, line ends or signs of any kind end up in a file that is read unchanged."""
    folder = tmp_path_factory.mktemp("draft")
    columns = {"id": [0, 1], "label": [value, value + other], f"f{name}": [0.5, 1.5]}
    specification = drafted(folder, columns)
    assert specification.data.features == (f"f{name}",)
    assert set(specification.data.classes) == {value, value + other}


def test_writing_never_replaces_a_file_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An existing specification is replaced only when that is asked for; data are named from the current folder."""
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table(dict(PLAIN)), tmp_path / "points.parquet")
    config = tmp_path / "sisa.toml"
    write_specification("points.parquet", config)
    assert read_specification(config).data.train == "points.parquet"
    with pytest.raises(Conflict, match=r"exists already\. Name another with --config, or replace it with --force\.$"):
        write_specification("points.parquet", config, label_column="user_id")
    write_specification("points.parquet", config, label_column="user_id", replace=True)
    assert read_specification(config).data.label == "user_id"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["points.parquet", "sisa.toml"]
