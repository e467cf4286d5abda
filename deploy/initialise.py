"""``sisa init``: drafts a commented ``sisa.toml`` from the data.

Guesses are made from column names and types, and the draft explains them in comments beside the settings. A person
reads them before training, because nothing in a specification may be learned from the data (E6).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import Any, Final

from deploy.encoders import DraftedEncoder, are_images, constants_of
from deploy.guesses import Guess, guess_parts, is_email
from shards.csv_form import USUAL_CSV, CsvForm
from shards.data.identified import ID_COLUMN, copy_with_ids
from shards.data.profile import ColumnDescription, SourceDescription, describe_source
from shards.data.sources import in_csv_form, open_source, passed_over_text, seen_csv_form
from shards.learner_kinds.kinds import LEARNERS, TORCH
from shards.schedule import minimum_epochs
from shards.specification import refuse_settings
from shards.targets import TARGETS, Class, Recommend
from storage.errors import Conflict, Invalid
from storage.location import is_on_s3

_SMALL_ENOUGH = 10.0
"""Features up to this size are left as they are."""
_STORE = "federation"
"""The store's folder in the draft, next to the specification: files in it are not data."""
_SMALL_LABEL = 3.0
"""Labels are left as they are up to this mean, and with a spread that differs from 1 by at most this factor."""
_IN_OR_NOT: Final = frozenset({"0", "1", "false", "true"})
_LEAST_ITEMS: Final = 2
_LEAST_GLOB = 4
"""Groups of fewer columns than this are listed one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecificationDraft:
    """A drafted specification, and what was guessed for it."""

    text: str
    points: int
    guess: Guess


def draft_specification(
    location: str,
    folder: Path,
    *,
    base: Path | None = None,
    id_column: str | None = None,
    subject_column: str | None = None,
    label_column: str | None = None,
    encoding: str | None = None,
    learner: str = TORCH,
) -> SpecificationDraft:
    """Return the text of a ``sisa.toml`` for ``folder`` that describes the data at ``location``.

    ``location`` is a file, a folder or a glob, relative to ``base`` (default: ``folder``), or in a bucket, on AWS or on
    the server that boto3 is configured for. ``encoding`` is that of CSV files (default: UTF-8, or as their byte order
    mark says). ``learner``: for which ``[model] learner``.

    Raises ``Invalid`` when a column's role cannot be guessed, with the option that sets it, or when a named column does
    not fit; and as ``open_source`` does.
    """
    if learner not in LEARNERS:
        raise Invalid(f"there is no learner {learner!r}", f"Take one of {', '.join(LEARNERS)}.")
    base = folder if base is None else base
    source = open_source(location, base, leave_out=(folder / _STORE,))
    refuse_settings("data", CsvForm(encoding=encoding or USUAL_CSV.encoding).problems())
    form = seen_csv_form(source, encoding)
    found = describe_source(in_csv_form(source, form))
    if found.points == 0:
        raise Invalid("the data hold no data point", "Name a file that holds some.", data=location)
    is_labelled = any(TARGETS[target].has_labels for target in LEARNERS[learner].targets)
    if label_column is not None and not is_labelled:
        raise Invalid(f"the learner {learner} learns from data points that have no label", "Leave out --label.")
    guess = guess_parts(
        found, id_column=id_column, subject_column=subject_column, label_column=label_column, labelled=is_labelled
    )
    guess = _in_view_of(learner, guess)
    _check_serves(learner, guess)
    text = _text(_train(location, base, folder), found, guess, form, passed_over_text(source), learner)
    return SpecificationDraft(text=text, points=found.points, guess=guess)


def _in_view_of(learner: str, guess: Guess) -> Guess:
    """Return the guess; where the learner counts labels that are few whole numbers, they are numbers, not classes."""
    kind = LEARNERS[learner]
    if Recommend.kind in kind.targets:
        return _with_items(guess)
    if guess.label is None or not kind.is_counting or Class.kind in kind.targets:
        return guess
    is_number = guess.is_number or all(value.isdecimal() for value in guess.label.values)
    # Without mean and deviation no constants are drafted for them.
    return replace(guess, is_number=is_number, label=replace(guess.label, mean=None, deviation=None))


def _with_items(guess: Guess) -> Guess:
    """Return the guess with the columns that are items as features."""
    items = [
        column
        for column in guess.features
        if column.kind in {"integer", "number", "boolean"} and {*column.values} <= _IN_OR_NOT and column.values
    ]
    if len(items) < _LEAST_ITEMS:
        raise Invalid(
            f"{len(items)} columns of the data hold 0 and 1, or false and true, alone: these are the items, and two or"
            " more are needed",
            "Give the data a column for each item, which says for each basket whether it contains the item.",
        )
    others = [column.name for column in guess.features if column not in items]
    encoded = {encoder.column for encoder in guess.encoders} - {*others}
    return replace(
        guess,
        unlabelled=Recommend.kind,
        features=tuple(items),
        left_out=(*guess.left_out, *((name, "not of 0 and 1 alone, so not an item") for name in others)),
        encoders=tuple(
            DraftedEncoder(column=column.name, options={"missing": 0.0}, reason="no value: not in the basket")
            for column in items
            if column.name in encoded
        ),
    )


def _check_serves(learner: str, guess: Guess) -> None:
    if guess.label is not None and guess.target not in LEARNERS[learner].targets:
        raise Invalid(
            f"the learner {learner} does not predict a {guess.target}, which the label {guess.label.name!r} seems to"
            " be",
            "Take another --learner, or name another label with --label.",
        )
    if learner != TORCH and guess.encoders and are_images(guess.encoders):
        raise Invalid(f"the learner {learner} takes no images", "Leave out --learner: networks take them.")


def _train(location: str, base: Path, folder: Path) -> str:
    """Return the data's path for the specification in ``folder``: relative if they are below it."""
    if is_on_s3(location):
        return location
    start, home = base.absolute(), folder.absolute()
    if not (start / location).exists():
        # A glob: escape the folder that it is relative to, whose name may contain a glob's characters.
        start, home = Path(escape(str(start))), Path(escape(str(home)))
    target = start / location
    return target.relative_to(home).as_posix() if target.is_relative_to(home) else target.as_posix()


def column_globs(chosen: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """Return names and globs that match ``chosen`` but not ``others``; four or more numbered names make a glob.

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
        # A power of two, because the largest value itself would be learned from the data (E6).
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


def _csv_lines(form: CsvForm) -> list[str]:
    """Return the settings for CSV files that are not in the usual form."""
    usual = asdict(USUAL_CSV)
    seen = ((name, value) for name, value in asdict(form).items() if value != usual[name])
    return [f"{name} = {_quoted(value)}  # of the CSV files, as seen in the first lines" for name, value in seen]


def _target_line(guess: Guess, points: int, *, is_counting: bool) -> str:
    if guess.target == Recommend.kind:
        return 'target   = "recommend"  # what is predicted: the items that go best with those of a basket'
    if guess.label is None:
        return 'target   = "cluster"  # what is predicted: the nearest of the clusters, which are found without labels'
    if guess.is_number:
        seen = "the rate of the labels" if is_counting else "the label has many different numbers"
        line = f'target   = "number"  # what is predicted: {seen}'
        constants = label_constants(guess)
        return "\n".join([line, *(f"{name} = {value}  # {reason}" for name, value, reason in constants)])
    most, share = most_frequent_class(guess, points)
    often = f"; {_quoted(most)} are {100 * share:.1f} % of the data points"
    return f"classes  = [{', '.join(map(_quoted, guess.label.values))}]  # declared, not learned{often}"


def label_constants(guess: Guess) -> list[tuple[str, float, str]]:
    """Return name, value and reason of the label's constants; nothing where its numbers are about -1 .. 1."""
    assert guess.label is not None
    mean, deviation = guess.label.mean or 0.0, guess.label.deviation or 1.0
    if abs(mean) <= _SMALL_LABEL and 1 / _SMALL_LABEL <= deviation <= _SMALL_LABEL:
        return []
    shift, scale, how = constants_of(guess.label)
    learned = "models learn (label - label_shift) / label_scale; answers are in the label's unit"
    return [("label_shift", shift, learned), ("label_scale", scale, f"guess: {how}, a published choice, too")]


def most_frequent_class(guess: Guess, points: int) -> tuple[str, float]:
    """Return the most frequent class and its share: what always naming it would reach."""
    assert guess.label is not None
    assert guess.label.most_frequent is not None
    most, count = guess.label.most_frequent
    return most, count / points


def _text(train: str, found: SourceDescription, guess: Guess, csv: CsvForm, passed_over: str, learner: str) -> str:
    sizes = _suggest(found.points)
    names = [column.name for column in guess.features]
    reserved = {column.name for column in (guess.id, guess.label, guess.subject) if column is not None}
    others = [column.name for column in found.columns if column.name not in {*names, *reserved}]
    form = "email" if is_email(guess.subject or guess.id) else "trimmed"
    has_items = guess.target == Recommend.kind
    scale, reason = _scale(guess.features) if not guess.encoders and not has_items else ("", "")
    features, which = (names, "the items") if has_items else (column_globs(names, others), "columns or globs")
    if guess.encoders and are_images(guess.encoders) and len(guess.encoders) == len(guess.features):
        scale, reason = "scale    = 255.0", "pixels become 0 to 1"
    data = [
        f"train    = {_quoted(train)}",
        *([f"# {_quoted(passed_over)}"] if passed_over else []),
        *([_ENDPOINT] if is_on_s3(train) else []),
        *_csv_lines(csv),
        f"id       = {_quoted(guess.id.name)}  # unique per data point",
        *_subject_lines(guess),
        f'subject_form = "{form}"  # which spellings are one person: trimmed, casefold, email, phone, integer, exact',
        *([f"label    = {_quoted(guess.label.name)}"] if guess.label else []),
        *_left_out_lines(guess),
        f"features = [{', '.join(map(_quoted, features))}]  # {which}",
        _target_line(guess, found.points, is_counting=LEARNERS[learner].is_counting),
        *([f"{scale}  # {reason}"] if scale else []),
        *_encoder_lines(guess),
    ]
    is_sliced = not LEARNERS[learner].whole
    estimator = _REGRESSOR if guess.is_number else _CLASSIFIER
    model = {TORCH: _NETWORK, **_OTHERS}[learner].format(
        epochs=sizes.epochs, batch_size=sizes.batch_size, estimator=estimator
    )
    return _TEMPLATE.format(
        points=f"{found.points:,}",
        name=_quoted(_name(train)),
        store=_STORE,
        data="\n".join(data),
        model=model,
        shards=f"{sizes.shards}  # more shards: cheaper erasure, less data for each constituent model"
        if is_sliced
        else "1  # one is enough: points are taken out directly; more only divide the work",
        slices=f"{sizes.slices}  # more slices: cheaper erasure (at most 1.5 times), more checkpoints"
        if is_sliced
        else f"{sizes.slices}  # an erasure writes one slice again",
    )


def _encoder_lines(guess: Guess) -> list[str]:
    """Return the table of encoders, where there are some."""
    if not guess.encoders:
        return []
    return ["", "[data.encode]", *_CHOICES, *(encoder.line() for encoder in guess.encoders)]


def _subject_lines(guess: Guess) -> list[str]:
    remark = [f"# {_on_one_line(guess.subject_remark)}"] if guess.subject_remark else []
    if guess.subject is None:
        return [
            *remark,
            '# subject = "user_id"  # whose data it is; without one, every data point is a subject of its own',
        ]
    named = f"subject  = {_quoted(guess.subject.name)}  # whose data it is; erasing a subject erases all its points"
    return [*remark, named]


def _left_out_lines(guess: Guess) -> list[str]:
    """Return a comment for each reason, with all columns that it keeps from being features."""
    columns: dict[str, list[str]] = {}
    for name, reason in guess.left_out:
        columns.setdefault(reason, []).append(_quoted(name))
    return [f"# left out of features: {', '.join(names)} ({_on_one_line(reason)})" for reason, names in columns.items()]


def _on_one_line(text: str) -> str:
    return _quoted(text)[1:-1]


_ENDPOINT = (
    '# endpoint = "https://host"  # server of the data; default: the store\'s, else as boto3 is configured, else AWS'
)

_CHOICES: Final = (
    "# Drafted from a look at the data, constants rounded to two digits. From here on they are published choices of a",
    "# person: they are not learned, and stay as they are when people are erased. Change what says too much about one.",
)

_TEMPLATE = """\
# Drafted by `sisa init` from {points} data points. Read it before training: what it says is declared, not learned.

name  = {name}
store = "./{store}"  # folder of data, checkpoints and receipts; relative to this file; or "s3://bucket/prefix"
# keys  = "/another/disk/keys"  # where the encryption keys are kept; without it, in the store

[data]
{data}

{model}
[partition]
shards = {shards}
slices = {slices}
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


_NETWORK = """\
[model]
factory   = "shards.models:mlp"  # any import path to a callable that returns a torch.nn.Module
arguments = {{ hidden = [128] }}
# files   = ["base.pt"]  # files next to this one that your own model reads; it may read no others

[training]
epochs        = {epochs}  # as one would use without slicing
batch_size    = {batch_size}
optimizer     = "sgd"  # sgd, adam, adamw
learning_rate = 0.05
seed          = 7
"""

_CERTIFIED: Final = """
# Declare as norm the largest Euclidean norm of a data point's features; clip shortens longer ones to it.
guarantee = "certified"  # weaker than exact: docs/guarantees.md"""

_DIRECT: Final[Mapping[str, str]] = {
    learner: f"""\
[model]
learner   = "{learner}"  # people are taken out of it directly
arguments = {{{{ {arguments} }}}}{_CERTIFIED if learner == "certified_linear" else ""}

[training]
seed = 7  # of all draws; there is no recipe
"""
    for learner, arguments in {
        "cooccurrence": "top = 5",
        "k_means": "clusters = 8, iterations = 10, step = 0.125",
        "forest": 'trees = 100, depth = 12, min_leaf = 5, thresholds = "pivot"',
        "naive_bayes": 'form = "gaussian", smoothing = 1.0',
        "ridge": "penalty = 1.0",
        "bayesian_linear": "penalty = 1.0, interval = 0.9",
        **dict.fromkeys(
            ("beta_bernoulli", "dirichlet_categorical", "gamma_poisson"),
            "group = false, interval = 0.9",
        ),
        "certified_linear": "norm = 10.0, clip = true, penalty = 1e-4, noise = 1.0, epsilon = 1.0, delta = 1e-4",
    }.items()
}

_OTHERS: Final[Mapping[str, str]] = {
    **_DIRECT,
    "boosting": """\
[model]
learner   = "boosting"  # LightGBM: pip install 'sisa-ray[boosting]'
arguments = {{ learning_rate = 0.1, leaves = 31, min_leaf = 20 }}

[training]
epochs = 100  # trees, as one would use without slicing; of three classes or more, one for each class
seed   = 7
""",
    "sklearn": """\
[model]
learner   = "sklearn"
arguments = {{ {estimator} }}  # and its own parameters, such as alpha

[training]
epochs = {epochs}  # calls of partial_fit, as one would use without slicing
seed   = 7
""",
}
_CLASSIFIER: Final = 'estimator = "SGDClassifier", loss = "log_loss"'
_REGRESSOR: Final = 'estimator = "SGDRegressor"'


def _quoted(text: str) -> str:
    """Return ``text`` as a TOML string on one line."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _name(train: str) -> str:
    """Return a name for the federation: the last part of the path that is not generic, such as 'train' or 'data'."""
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
    encoding: str | None = None,
    replace: bool = False,
    ids_into: Path | None = None,
    header: Sequence[str] = (),
    learner: str = TORCH,
) -> SpecificationDraft:
    """Draft a specification for the data at ``location`` (relative to the current folder) and write it to ``config``.

    With ``ids_into`` the data are one CSV file: a copy with a column of ids is written there, and drafted for.
    ``header`` names the columns of such a file if it has no header line. Raises ``Conflict`` when a file exists and is
    not to be replaced.
    """
    if config.exists() and not replace:
        raise Conflict(f"{config} exists already", "Name another with --config, or replace it with --force.")
    if ids_into is None and header:
        raise Invalid(
            "--header has no effect without --add-ids", "Add --add-ids COPY.csv, which writes the header, too."
        )
    if ids_into is not None:
        if id_column is not None:
            raise Invalid("--add-ids adds the id column that --id names", "Leave one of them out.")
        _copy_with_ids(location, ids_into, encoding, header)
        location, id_column = str(ids_into), ID_COLUMN
    try:
        draft = draft_specification(
            location,
            config.parent,
            base=Path.cwd(),
            id_column=id_column,
            subject_column=subject_column,
            label_column=label_column,
            encoding=encoding,
            learner=learner,
        )
    except Invalid:
        if ids_into is not None:
            ids_into.unlink()  # so that the corrected command can write it
        raise
    unfinished = config.with_name(f".{config.name}.partial")
    unfinished.write_text(draft.text, encoding="utf-8")
    unfinished.replace(config)
    return draft


def _copy_with_ids(location: str, target: Path, encoding: str | None, header: Sequence[str]) -> None:
    source = open_source(location, Path.cwd())
    if len(source.files) != 1:
        raise Invalid("--add-ids takes one file", "Name a single CSV file.", data=location)
    form = seen_csv_form(source, encoding)
    copy_with_ids(in_csv_form(source, form).files[0], target, header)


def draft_text(draft: SpecificationDraft) -> str:
    """Return the guesses as text, for a person to review."""
    guess = draft.guess
    subject = repr(guess.subject.name) if guess.subject else "none: every data point is a subject of its own"
    features = column_globs([column.name for column in guess.features], [name for name, _ in guess.left_out])
    more = f" and {len(features) - 10} more" if len(features) > 10 else ""
    many = f"{len(guess.features)} feature{'s' * (len(guess.features) > 1)}"
    lines = [
        f"{draft.points:,} data points; id {guess.id.name!r}; subject {subject}",
        _label_text(guess),
        f"{many}: {', '.join(map(repr, features[:10]))}{more}",
        *([f"subject: {guess.subject_remark}"] if guess.subject_remark else []),
        *(f"encoded: {each.column!r} ({each.reason})" for each in guess.encoders),
        *(f"left out: {name!r} ({reason})" for name, reason in guess.left_out),
    ]
    return "\n".join(lines)


def _label_text(guess: Guess) -> str:
    if guess.label is None:
        return "no label: clusters are found without one"
    return f"label {guess.label.name!r}{', a number' if guess.is_number else f' of {len(guess.label.values)} classes'}"


def draft_fields(draft: SpecificationDraft) -> dict[str, Any]:
    """Return the guesses as JSON."""
    guess = draft.guess
    return {
        "points": draft.points,
        "id": guess.id.name,
        "subject": guess.subject.name if guess.subject else None,
        "label": guess.label.name if guess.label else None,
        "target": guess.target,
        "classes": [] if guess.is_number or guess.label is None else list(guess.label.values),
        **({name: value for name, value, _ in label_constants(guess)} if guess.is_number else {}),
        "features": [column.name for column in guess.features],
        "encode": {each.column: dict(each.options) for each in guess.encoders},
        "left_out": dict(guess.left_out),
        "remarks": [guess.subject_remark] if guess.subject_remark else [],
    }
