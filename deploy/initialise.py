"""``sisa init``: a commented ``sisa.toml`` drafted from a look at the data.

Guesses are made from column names and types, and stand in the draft as comments beside the settings, to be read by a
person before training: what is declared there is declared, not learned (E6).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path

from shards.data.profile import ColumnDescription, SourceDescription, describe
from shards.data.sources import open_source
from shards.schedule import minimum_epochs
from storage.errors import Conflict, Invalid
from storage.location import is_on_s3

_ID_NAMES = re.compile(r"(id|uuid|guid|key)|.*_(id|uuid|guid|key)", re.IGNORECASE)
_EMAIL_NAMES = re.compile(r"(.*_)?e[-_]?mail(_?address)?", re.IGNORECASE)
_SUBJECT_NAMES = re.compile(
    rf"(user|person|subject|account|customer|patient|client|member).*|{_EMAIL_NAMES.pattern}", re.IGNORECASE
)
_LABEL_NAMES = ("label", "target", "class", "y", "outcome")
_NUMBERS = ("integer", "number", "boolean")
_SMALL_ENOUGH = 10.0
"""Features up to this size are left as they are."""
_STORE = "federation"
"""The folder, beside the specification, of the store that the draft names: what lies there is no data."""
_LEAST_GLOB = 4
"""Fewer columns than this are named one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Guess:
    """Which column plays which part."""

    id: ColumnDescription
    subject: ColumnDescription | None
    label: ColumnDescription
    features: tuple[ColumnDescription, ...]
    left_out: tuple[str, ...]


def draft_specification(
    location: str,
    folder: Path,
    *,
    base: Path | None = None,
    id_column: str | None = None,
    subject_column: str | None = None,
    label_column: str | None = None,
) -> str:
    """Return the text of a ``sisa.toml`` that is to lie in ``folder`` and describes the data at ``location``.

    ``location`` is a file, a folder or a glob, relative to ``base`` (default: ``folder``), or in a bucket, whose server
    is AWS or what boto3 is told. Raises ``Invalid`` when a column's part cannot be guessed, naming the option that
    states it, or when a stated column does not fit; else as ``open_source`` does.
    """
    base = folder if base is None else base
    found = describe(open_source(location, base, leave_out=(folder / _STORE,)))
    if found.points == 0:
        raise Invalid("the data hold no data point", "name a file that holds some", data=location)
    guess = _guess(found, id_column, subject_column, label_column)
    return _text(_train(location, base, folder), found, guess)


def _train(location: str, base: Path, folder: Path) -> str:
    """Return how the specification in ``folder`` names the data: relative where they lie below it."""
    if is_on_s3(location):
        return location
    start, home = base.absolute(), folder.absolute()
    if not (start / location).exists():
        # A glob: the folder it starts from is none, whatever characters its name has.
        start, home = Path(escape(str(start))), Path(escape(str(home)))
    target = start / location
    return target.relative_to(home).as_posix() if target.is_relative_to(home) else target.as_posix()


# ------------------------------------------------------------------------------------------------------------- guessing


def _guess(found: SourceDescription, id_name: str | None, subject_name: str | None, label_name: str | None) -> _Guess:
    label = _stated(found, label_name) or _guess_label(found)
    _check_label(label)
    others = [column for column in found.columns if column.name != label.name]
    id_ = _stated(found, id_name) or _guess_id(found, others)
    _check_id(found, id_)
    others = [column for column in others if column.name != id_.name]
    subject = _stated(found, subject_name) or _first(
        others, lambda column: bool(_SUBJECT_NAMES.fullmatch(column.name)) and _names_things(column)
    )
    others = [column for column in others if subject is None or column.name != subject.name]
    numbers = tuple(column for column in others if column.kind in _NUMBERS and not column.nulls)
    lists = tuple(column for column in others if column.kind == "list" and not column.nulls)[:1]
    features = numbers or lists
    if not features:
        raise Invalid("no column of numbers is left for features", "write the features as columns of numbers")
    used = {column.name for column in features}
    left_out = tuple(column.name for column in others if column.name not in used)
    return _Guess(id=id_, subject=subject, label=label, features=features, left_out=left_out)


def _stated(found: SourceDescription, name: str | None) -> ColumnDescription | None:
    if name is None:
        return None
    names = [column.name for column in found.columns]
    if name not in names:
        near = get_close_matches(name, names, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"columns are {_some(names)}"
        raise Invalid(f"there is no column {name!r}", remedy, file=found.files[0])
    return found.columns[names.index(name)]


def _guess_label(found: SourceDescription) -> ColumnDescription:
    named = {column.name.lower(): column for column in reversed(found.columns)}
    for name in _LABEL_NAMES:
        if name in named:
            return named[name]
    able = [column.name for column in found.columns if len(column.values) > 1 and not column.nulls]
    remedy = (
        f"name it with --label; able to be one are {_some(able)}" if able else "add a column with each point's class"
    )
    raise Invalid("no column looks like a label", remedy, file=found.files[0])


def _check_label(column: ColumnDescription) -> None:
    if column.nulls:
        raise Invalid("the label column holds nulls", "give every data point a label", column=column.name)
    if len(column.values) < 2:
        number = "too many" if column.distinct is None else str(len(column.values))
        fact = f"the label column holds {number} classes; training needs two or more, and they must be names"
        raise Invalid(fact, "name another column with --label", column=column.name)


def _guess_id(found: SourceDescription, columns: Sequence[ColumnDescription]) -> ColumnDescription:
    able = [
        column
        for column in columns
        if _ID_NAMES.fullmatch(column.name) and _names_things(column) and _unique(found, column)
    ]
    # Where a user_id is unique as well, the point's own id comes first.
    own = [column for column in able if not _SUBJECT_NAMES.fullmatch(column.name)]
    if able:
        return min(own or able, key=lambda column: len(column.name))
    names = [column.name for column in columns if _names_things(column) and _unique(found, column)]
    remedy = f"name it with --id; able to be one are {_some(names)}" if names else "add a column with each point's own"
    raise Invalid("no column looks like a unique id", remedy, file=found.files[0])


def _check_id(found: SourceDescription, column: ColumnDescription) -> None:
    if not _names_things(column):
        raise Invalid(
            "the id column must hold texts or whole numbers, and no nulls", "name another", column=column.name
        )
    if not _unique(found, column):
        fact = f"the id column holds {column.distinct} distinct ids for {found.points} data points"
        raise Invalid(fact, "name a unique one with --id", column=column.name)


def _names_things(column: ColumnDescription) -> bool:
    return column.kind in {"text", "integer"} and not column.nulls


def _unique(found: SourceDescription, column: ColumnDescription) -> bool:
    """Return whether the column can be unique: beyond so many values they are not counted, and ingest will tell."""
    return column.distinct is None or column.distinct == found.points


def _first(columns: Sequence[ColumnDescription], fits: Callable[[ColumnDescription], bool]) -> ColumnDescription | None:
    return next(filter(fits, columns), None)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def column_globs(chosen: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """Return names and globs that match ``chosen`` and none of ``others``; four numbered names or more make a glob.

    >>> column_globs(["age", "x0", "x1", "x2", "x3"], ["id", "label"])
    ('age', 'x*')
    >>> column_globs(["x0", "x1", "x2", "x3"], ["xyz"])
    ('x[0-9]*',)
    """
    groups: dict[str, list[str]] = {}
    for name in chosen:
        stem = re.sub(r"[0-9]+$", "", name)
        groups.setdefault(stem if stem != name else f"{name}\0", []).append(name)
    globs: list[str] = []
    for stem, names in groups.items():
        foreign = [name for name in (*chosen, *others) if name not in set(names)]
        literal = re.sub(r"([*?[])", r"[\1]", stem)
        patterns = [
            pattern for pattern in (f"{literal}*", f"{literal}[0-9]*") if pattern not in (*chosen, *others, "*")
        ]
        fitting = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in foreign)]
        globs += fitting[:1] if len(names) >= _LEAST_GLOB and fitting else names
    return tuple(globs)


# -------------------------------------------------------------------------------------------------------------- writing


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """Suggestions by the number of data points."""

    shards: int
    slices: int
    epochs: int
    batch_size: int


def _suggest(points: int) -> _Sizes:
    """Return shards of a few hundred data points at least: smaller ones cost accuracy (SISA section V)."""
    most = 5 if points < 200_000 else 10 if points < 1_000_000 else 20
    shards = max(1, min(most, points // 250))
    slices = max(1, min(5, points // shards // 20))
    epochs = max(minimum_epochs(slices), 40 if points < 10_000 else 20)
    return _Sizes(shards=shards, slices=slices, epochs=epochs, batch_size=16 if points < 200_000 else 64)


def _scale(features: Sequence[ColumnDescription]) -> tuple[str, str]:
    """Return the setting's line and its reason."""
    in_bytes = all("uint8" in column.type for column in features)
    largest = 255 if in_bytes and features[0].kind == "list" else _largest(features)
    if 127 < largest <= 255:
        return "scale    = 255.0", "guess: whole numbers up to 255 are bytes, brought to 0 .. 1"
    if in_bytes and largest > 1:
        # A power of two, for the largest value itself would be learned from the data (E6).
        return f"scale    = {float(1 << (largest - 1).bit_length())}", "guess: small whole numbers, brought to 0 .. 1"
    powers = [_power_of_ten(column.largest) for column in features]
    if max(powers) <= _SMALL_ENOUGH:
        return "# scale  = 1.0", "fixed constants that features are divided by; SGD likes features about -1 .. 1"
    # Powers of ten alone: a finer constant would be learned from the data, and so from people who may be erased (E6).
    listed = str(powers[0]) if len(set(powers)) == 1 else f"[{', '.join(map(str, powers))}]"
    return f"scale    = {listed}", "guess: powers of ten that bring each feature to about -1 .. 1"


def _power_of_ten(largest: float | None) -> float:
    """Return the power of ten, 1 or more, that is not below ``largest``."""
    if largest is None or not 1 < largest < math.inf:
        return 1.0
    return float(10 ** math.ceil(math.log10(largest)))


def _largest(features: Sequence[ColumnDescription]) -> int:
    """Return the largest value if all features are whole numbers from 0 on and few enough to be counted, else 0."""
    if not all(column.kind == "integer" and column.values for column in features):
        return 0
    smallest = min(int(column.values[0]) for column in features)
    return max(int(column.values[-1]) for column in features) if smallest >= 0 else 0


def _text(train: str, found: SourceDescription, guess: _Guess) -> str:
    sizes = _suggest(found.points)
    names = [column.name for column in guess.features]
    reserved = {column.name for column in (guess.id, guess.label, guess.subject) if column is not None}
    others = [column.name for column in found.columns if column.name not in {*names, *reserved}]
    subject = (
        f"subject  = {_quoted(guess.subject.name)}  # whose data it is; erasing a subject erases all its points"
        if guess.subject
        else '# subject = "user_id"  # whose data it is; without one, every data point is a subject of its own'
    )
    form = "email" if _EMAIL_NAMES.fullmatch((guess.subject or guess.id).name) else "trimmed"
    left_out = ", ".join(map(_quoted, guess.left_out))
    scale, reason = _scale(guess.features)
    data = [
        f"train    = {_quoted(train)}",
        *([_ENDPOINT] if is_on_s3(train) else []),
        f"id       = {_quoted(guess.id.name)}  # unique per data point",
        subject,
        f'subject_form = "{form}"  # which spellings are one person: trimmed, casefold, email, phone, integer, exact',
        f"label    = {_quoted(guess.label.name)}",
        *([f"# left out of features: {left_out}"] if left_out else []),
        f"features = [{', '.join(map(_quoted, column_globs(names, others)))}]  # columns or globs",
        f"classes  = [{', '.join(map(_quoted, guess.label.values))}]  # declared, not learned",
        f"{scale}  # {reason}",
    ]
    return _TEMPLATE.format(
        points=f"{found.points:,}",
        name=_quoted(_name(train)),
        store=_STORE,
        data="\n".join(data),
        **{item: getattr(sizes, item) for item in ("shards", "slices", "epochs", "batch_size")},
    )


_ENDPOINT = (
    '# endpoint = "https://host"  # server of the data; default: the store\'s, else what boto3 is told, else AWS'
)

_TEMPLATE = """\
# Drafted by `sisa init` from {points} data points. Read it before training: what stands here is declared, not learned.

name  = {name}
store = "./{store}"  # folder of data, checkpoints and receipts; relative to this file; or "s3://bucket/prefix"
# keys  = "/another/disk/keys"  # where the encryption keys lie; without it they lie in the store

[data]
{data}

[model]
factory   = "shards.models:mlp"  # any import path to a callable that returns a torch.nn.Module
arguments = {{ hidden = [128] }}

[training]
epochs        = {epochs}  # as one would use without slicing
batch_size    = {batch_size}
optimizer     = "sgd"  # sgd, adam, adamw
learning_rate = 0.05
seed          = 7

[partition]
shards = {shards}  # more shards: cheaper erasure, less data for each constituent model
slices = {slices}  # more slices: cheaper erasure (at most 1.5 times), more checkpoints
# key  = "…"  # secret, hexadecimal; without one it is drawn once and kept in the store

[aggregation]
rule = "mean_probability"  # or "majority_vote"

[erasure]
batch_window_seconds = 2.0
deadline_days        = 30

[cluster]
address         = "local"  # or "auto", or a Ray address
cpus_per_worker = 1
gpus_per_worker = 0
"""


def _quoted(text: str) -> str:
    """Return ``text`` as a TOML string on one line."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _name(train: str) -> str:
    """Return a name for the federation: the last part of the path that says something."""
    parts = [Path(train).stem, *reversed(Path(train).parent.parts)]
    telling = [
        part for part in parts if part.lower() not in {"train", "training", "data"} and not set(part) & set("*?[")
    ]
    names = [re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip(".-_") for part in telling]
    return next(filter(None, names), "federation")[:63]


def write_specification(
    location: str,
    config: Path,
    *,
    id_column: str | None = None,
    subject_column: str | None = None,
    label_column: str | None = None,
    replace: bool = False,
) -> None:
    """Draft a specification for the data at ``location`` (relative to the present folder) and write it to ``config``.

    Raises ``Conflict`` when the file exists and is not to be replaced.
    """
    if config.exists() and not replace:
        raise Conflict(f"{config} exists already", "name another with --config, or replace it with --force")
    text = draft_specification(
        location,
        config.parent,
        base=Path.cwd(),
        id_column=id_column,
        subject_column=subject_column,
        label_column=label_column,
    )
    unfinished = config.with_name(f".{config.name}.partial")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(config)
