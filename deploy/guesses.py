"""Guesses the role of each column (id, subject, label, feature) from its name and values, with reasons.

A wrong guess would be trained on. So where no column fits, the user is asked for it, and each column that is not a
feature is listed with the reason. Row numbers and other numbers that only name something are never features, because
they measure nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from deploy.encoders import DraftedEncoder, are_images, draft_encoder, draft_scaling, is_flat, with_own_scale
from shards.data.encoding.image_forms import ImageForms
from shards.data.profile import ColumnDescription, SourceDescription
from shards.targets import Class, Cluster, Number
from storage.errors import Invalid

_LABEL_NAMES: Final = ("label", "target", "class", "y", "outcome")
_LABELS_ALONE: Final = frozenset(_LABEL_NAMES) - {"y"}
"""Those that cannot be a coordinate."""
_UNNAMED: Final = re.compile(r"|Unnamed: ?\d+(\.\d+)*(_level_\d+)?|__index_level_\d+__")
"""Column names that pandas and R give to row numbers only."""
_ROWS: Final = re.compile(r"index|level_\d+|row[_ ]?(names?|num(ber)?|nr|no|index)?", re.IGNORECASE)
"""Column names that are common for row numbers, but not reserved for them."""

_PEOPLE: Final = frozenset(
    re.findall(
        r"[a-z]+",
        "user person subject account customer patient client member email employee student pupil worker"
        " author writer owner participant respondent individual citizen passenger voter donor speaker player"
        " driver tenant guest visitor subscriber applicant borrower holder household candidate caller sender"
        " recipient buyer seller teacher",
    )
)
_IDS: Final = frozenset({"id", "uid", "uuid", "guid", "key", "identifier"})
_NUMBERS: Final = frozenset(
    re.findall(
        r"[a-z]+",
        "number no nr num code zip zipcode postcode postal phone telephone tel mobile fax ssn iban ean isbn"
        " sku serial ref reference",
    )
)
"""A column whose name ends in one of these holds codes rather than measurements, if it has many distinct numbers."""

_NAMING: Final = _IDS | _NUMBERS | {"name", "hash", "address"}
_DESCRIBING: Final = frozenset(
    re.findall(
        r"[a-z]+",
        "type kind class group segment status state tier level category age sex gender count total score"
        " rating rank city country region since date time year month day balance amount value income size"
        " weight height satisfaction plan language currency role title flag active",
    )
)
"""A column with one of these words describes a person, and so does not name one."""

_LEAST_POINTS: Final = 20
"""With fewer data points, the values do not show what a column means."""
_FEW: Final = 10
"""A column names people if it has this many distinct values, or fewer data points than this for each value."""
_MANY: Final = 1000
"""People rarely have this many data points each."""
_LAST_RANK: Final = 2
"""A remark about a column of repeated ids whose name does not say whose they are."""
_MOST_SCALED: Final = 100
"""With more columns of plain numbers than this, not every one gets its own line of constants."""
_MOST_CODES: Final = 20
"""More distinct numbers than this are classes only if they are codes that count from 0 or 1 without a gap."""
_IMPROBABLE: Final = 7.0
"""The number of pairs divided by the range, above which random numbers would repeat except with probability exp(-7)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """The role of each column."""

    id: ColumnDescription
    subject: ColumnDescription | None
    subject_remark: str
    """What the user should know about the subject column, or why there is none; may be empty."""
    label: ColumnDescription | None
    """None: the learner needs none."""
    features: tuple[ColumnDescription, ...]
    left_out: tuple[tuple[str, str], ...]
    """Each column without a role, with the reason."""
    encoders: tuple[DraftedEncoder, ...] = ()
    """Encoders of feature columns that are not plain numbers, and of large numbers, which are brought to about -1 ..
    1."""
    is_number: bool = False
    """Whether the label is a number to predict, and not a class."""
    unlabelled: str = Cluster.kind
    """What is predicted where there is no label."""

    @property
    def target(self) -> str:
        """What would be predicted."""
        return self.unlabelled if self.label is None else Number.kind if self.is_number else Class.kind


def guess_parts(
    found: SourceDescription,
    *,
    id_column: str | None,
    subject_column: str | None,
    label_column: str | None,
    labelled: bool = True,
) -> Guess:
    """Return the role of each column; a column that the caller names is used if it fits.

    Without ``labelled`` no column is the label, and a column with such a name is left out.

    Raises ``Invalid`` when a role cannot be guessed, with the option that sets it, or when a named column does not fit.
    """
    label = (_stated(found, label_column) or _guess_label(found)) if labelled else None
    if label is not None:
        _check_label(found, label)
    others = [column for column in found.columns if label is None or column.name != label.name]
    id_ = _stated(found, id_column) or _guess_id(found, others)
    _check_id(found, id_)
    others = [column for column in others if column.name != id_.name]
    subject, remark = _guess_subject(found, others)
    if subject_column is not None:
        subject, remark = _stated(found, subject_column), ""
    others = [column for column in others if subject is None or column.name != subject.name]
    labels = [column.name for column in others if label is None and column.name.lower() in _LABELS_ALONE]
    others = [column for column in others if column.name not in labels]
    reasons = {column.name: _why_no_feature(found, column) for column in others}
    drafts = {column.name: _draft(found, column, reasons[column.name]) for column in others}
    reasons |= dict.fromkeys((name for name, draft in drafts.items() if draft is not None), "")
    able = [column for column in others if not reasons[column.name]]
    numbers = tuple(column for column in able if column.kind != "list")
    features = numbers or tuple(able[:1])
    for column in able:
        if column not in features:
            reasons[column.name] = "a list beside other features: one column of lists, or columns of numbers"
    left_out = tuple((column.name, reason) for column in others if (reason := reasons[column.name]))
    left_out += tuple((name, "by its name a label, which the learner does without") for name in labels)
    if not features:
        raise _no_features(left_out)
    encoders = [draft for column in features if (draft := drafts[column.name]) is not None]
    if not are_images(encoders) or len(encoders) < len(features):
        encoders = [with_own_scale(draft) for draft in encoders]
    if encoders or (len(features) <= _MOST_SCALED and any(map(is_flat, features))):
        scalings = (draft_scaling(column) for column in features if drafts[column.name] is None)
        encoders += [draft for draft in scalings if draft is not None]
    return Guess(
        id=id_,
        subject=subject,
        subject_remark=remark,
        label=label,
        features=features,
        left_out=left_out,
        encoders=tuple(encoders),
        is_number=label is not None and is_number(found, label),
    )


def is_email(column: ColumnDescription) -> bool:
    """Return whether the column holds e-mail addresses, by its values or its name."""
    return column.is_email or "email" in _words(column.name)


def _stated(found: SourceDescription, name: str | None) -> ColumnDescription | None:
    if name is None:
        return None
    names = [column.name for column in found.columns]
    if name not in names:
        near = get_close_matches(name, names, n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else f"Name one of {_some(names)}."
        raise Invalid(f"there is no column {name!r}", remedy, file=found.files[0])
    return found.columns[names.index(name)]


# ---------------------------------------------------------------------------------------------------------------- label


def _guess_label(found: SourceDescription) -> ColumnDescription:
    named = {column.name.lower(): column for column in reversed(found.columns)}
    known = [named[name] for name in _LABEL_NAMES if name in named]
    if known:
        return next((column for column in known if _is_class(found, column)), known[0])
    raise Invalid("no column looks like a label", _remedy_label(found, "Name it"), file=found.files[0])


def _check_label(found: SourceDescription, column: ColumnDescription) -> None:
    if column.nulls:
        few = f" in {column.nulls} of {found.points} data points"
        remedy = "Give every data point a label; that of an image is the subfolder that it is in."
        raise Invalid(f"the label column holds nulls{few}", remedy, column=column.name)
    if is_number(found, column):
        return
    if not _repeat(found, column):
        fact = f"the label column holds {len(column.values)} different texts in {found.points} data points, not classes"
        raise Invalid(fact, _remedy_label(found, "Name another column"), column=column.name)
    if len(column.values) < 2:
        number = "too many" if column.distinct is None else str(len(column.values))
        fact = f"the label column holds {number} classes; training needs two or more, and they must be names"
        raise Invalid(fact, _remedy_label(found, "Name another column"), column=column.name)


def _remedy_label(found: SourceDescription, name_it: str) -> str:
    classes = [column.name for column in found.columns if _is_class(found, column)]
    numbers = [column.name for column in found.columns if _is_amount(found, column)]
    if not classes and not numbers:
        return "Add a column with each data point's class or number, and name it with --label."
    able = f" Columns that could be one: {_some(classes)}." if classes else ""
    return f"{name_it} with --label.{able}{f' Numbers to predict: {_some(numbers)}.' if numbers else ''}"


def _is_class(found: SourceDescription, column: ColumnDescription) -> bool:
    """Return whether the column could hold classes: at least two values, which repeat."""
    several = len(column.values) > 1 and not column.nulls and not column.counts
    names_something = _rank_as_person(column) is not None or _is_name(found, column) or _is_row_number(column)
    return several and _repeat(found, column) and not names_something and not is_number(found, column)


def _is_amount(found: SourceDescription, column: ColumnDescription) -> bool:
    """Return whether the column could hold numbers to predict, and not names of something."""
    names_something = _rank_as_person(column) is not None or _is_name(found, column) or _is_row_number(column)
    is_whole = not column.nulls and not column.unusable and not column.counts
    return is_whole and not names_something and is_number(found, column)


def _repeat(found: SourceDescription, column: ColumnDescription) -> bool:
    """Return whether there are two values, or values occur twice on average: otherwise no class could be learned."""
    return len(column.values) <= max(2, found.points // 2)


def is_number(found: SourceDescription, column: ColumnDescription) -> bool:
    """Return whether the column measures something: it holds fractions, or many numbers that are not codes."""
    if column.kind not in {"integer", "number"} or column.distinct in {0, 1}:
        return False
    if not column.values:
        return True
    codes = len(column.values)
    if not _repeat(found, column):
        return True
    first = column.values[0]
    coded = first in {"0", "1"} and column.values[-1] == str(codes - 1 + int(first))
    return codes > _MOST_CODES and not coded


# ------------------------------------------------------------------------------------------------------------------- id


def _guess_id(found: SourceDescription, columns: Sequence[ColumnDescription]) -> ColumnDescription:
    able = [column for column in columns if _names_things(column) and not column.repeats and not _is_row_number(column)]
    ranked = [(rank, len(column.name), column) for column in able if (rank := _rank_as_id(column)) is not None]
    if ranked:
        return min(ranked, key=lambda each: each[:2])[2]
    if able:
        remedy = f"Name it with --id. Columns that could be one: {_some([column.name for column in able])}."
    else:
        remedy = (
            f"Add a column with a unique id for each data point{_why_no_id(columns)}; --add-ids COPY.csv writes a copy"
            " of a CSV file that has one."
        )
    raise Invalid("no column looks like a unique id", remedy, file=found.files[0])


def _rank_as_id(column: ColumnDescription) -> int | None:
    """Return how well the name fits an id, 0 being best: a data point's own id comes before a person's."""
    words, person = _words(column.name), _rank_as_person(column)
    if not words:
        return None
    if words[-1] in _IDS:
        return 0 if person is None else 1
    if person == 0:
        return 2
    return 3 if words[-1] in _NUMBERS and not column.counts else None


def _why_no_id(columns: Sequence[ColumnDescription]) -> str:
    rows = [column.name for column in columns if _is_row_number(column)]
    again = [column.name for column in columns if _rank_as_id(column) is not None and column.repeats]
    reasons = [
        *([f"{_some(again)}: holds values that occur twice"] if again else []),
        *([f"{_some(rows)}: a row number, which another row has after a new export"] if rows else []),
    ]
    return f" ({'; '.join(reasons)})" if reasons else ""


def _check_id(found: SourceDescription, column: ColumnDescription) -> None:
    if not _names_things(column):
        raise Invalid(
            "the id column must hold texts or whole numbers, and no nulls",
            "Name another column with --id.",
            column=column.name,
        )
    if column.repeats:
        few = column.distinct is not None
        fact = f"{column.distinct} distinct ids for {found.points} data points" if few else "ids that occur twice"
        raise Invalid(f"the id column holds {fact}", "Name a unique one with --id.", column=column.name)


def _names_things(column: ColumnDescription) -> bool:
    return column.kind in {"text", "integer"} and not column.nulls


# -------------------------------------------------------------------------------------------------------------- subject


def _guess_subject(
    found: SourceDescription, columns: Sequence[ColumnDescription]
) -> tuple[ColumnDescription | None, str]:
    """Return the column that names people, and a remark.

    Columns with more than a few values come first; among them those whose values repeat, because without repetition
    every data point would be a subject of its own; then those whose name only says who it is; then those with more
    values.
    """
    ranked = []
    for position, column in enumerate(columns):
        rank = _rank_as_person(column)
        if rank is None and column.repeats and set(_words(column.name)) <= _IDS:
            rank = _LAST_RANK  # an id of something with several data points, most likely of a person
        if rank is None or not column.name or _is_row_number(column):
            continue
        if _names_things(column) and column.distinct != 1 and not (rank and _is_few(found, column)):
            many = column.distinct or found.points
            ranked.append((_is_few(found, column), not column.repeats, rank, -many, position, column))
    if ranked:
        best = min(ranked, key=lambda each: each[:5])[5]
        few = f"only {best.distinct} values in {found.points} data points: does it name people?"
        return best, few if _is_few(found, best) else ""
    return None, "; ".join(_why_no_subject(columns))


def _why_no_subject(columns: Sequence[ColumnDescription]) -> Iterator[str]:
    for column in columns:
        if _rank_as_person(column) == 0 and column.nulls:
            yield f"{column.name!r} is empty in {column.nulls} data points: every data point needs a subject"
        elif _rank_as_person(column) == 0 and column.kind == "number":
            yield f"{column.name!r} holds numbers with a point: write whole numbers or text"


def _rank_as_person(column: ColumnDescription) -> int | None:
    """Return 0 if the column's name only says who it is, 1 if it may say so, None otherwise."""
    words = _words(column.name)
    if column.is_email:
        return 0
    if _PEOPLE.isdisjoint(words) or not _DESCRIBING.isdisjoint(words):
        return None
    return 0 if set(words) <= _PEOPLE | _NAMING else 1


def _is_few(found: SourceDescription, column: ColumnDescription) -> bool:
    """Return whether there are few values, or so many data points for each that it is hardly a person's."""
    each = found.points // max(1, column.distinct or found.points)
    return column.distinct is not None and ((column.distinct < _FEW and each >= _FEW) or each >= _MANY)


# ------------------------------------------------------------------------------------------------------------- features


def _why_no_feature(found: SourceDescription, column: ColumnDescription) -> str:
    """Return why the column is not a feature; empty if it is one."""
    if _is_row_number(column) or (column.counts and found.points >= _LEAST_POINTS):
        return "a row number"
    if column.images is not None:
        return _why_no_images(column.images)
    if column.kind == "text":
        return "text" if "string" in column.type else "numbers, but for some cells"
    if column.kind == "nested":
        return "lists of lists: write one flat list of numbers for each data point"
    if column.kind == "other":
        return f"type {column.type}, which is not a number"
    if not column.name:
        return "a column without a name"
    if column.nulls:
        return f"no value in {column.nulls} of {found.points} data points"
    if column.kind == "list":
        return _why_no_list(column)
    if column.unusable:
        return f"NaN or infinite in {column.unusable} of {found.points} data points"
    return "numbers that look like ids: they name something and measure nothing" if _is_name(found, column) else ""


def _why_no_images(found: ImageForms) -> str:
    if found.problem:
        return found.problem
    return "images" if found.sizes else f"images, none of the first {found.seen} of which can be read"


def _draft(found: SourceDescription, column: ColumnDescription, reason: str) -> DraftedEncoder | None:
    """Return an encoder for a column that has a ``reason`` not to be a plain feature; None if no encoder helps."""
    names_something = _is_row_number(column) or column.counts or _is_name(found, column) or _names_people(found, column)
    if column.images is not None:
        names_something = False
    return None if not reason or names_something else draft_encoder(column, found.points)


def _names_people(found: SourceDescription, column: ColumnDescription) -> bool:
    rank = _rank_as_person(column)
    return column.kind == "text" and rank is not None and not (rank and _is_few(found, column))


def _why_no_list(column: ColumnDescription) -> str:
    if column.unusable:
        return f"lists that are empty or hold NaN, infinity or no value, in {column.unusable} data points"
    shortest, longest = column.lengths or (0, 0)
    return "" if shortest == longest else f"lists of different lengths, {shortest} to {longest}"


def _is_row_number(column: ColumnDescription) -> bool:
    """Return whether the column has a name that tools give to row numbers, and holds such numbers."""
    if _UNNAMED.fullmatch(column.name):
        return column.kind in {"integer", "number"}
    counts = column.kind == "integer" and (column.counts or not column.repeats)
    return counts and bool(_ROWS.fullmatch(column.name))


def _is_name(found: SourceDescription, column: ColumnDescription) -> bool:
    """Return whether numbers stand for something: by the column's name, or because random numbers would repeat."""
    words = _words(column.name)
    if words and words[-1] in _IDS:
        return True
    if column.kind != "integer":
        return False
    names = (bool(words) and words[-1] in _NUMBERS) or _rank_as_person(column) == 0
    if names and (column.distinct is None or column.distinct > _MOST_CODES):
        return True
    if column.repeats or column.span is None or found.points < _LEAST_POINTS:
        return False
    return found.points**2 / (2 * column.span) > _IMPROBABLE


def _no_features(left_out: Sequence[tuple[str, str]]) -> Invalid:
    reasons = "; ".join(f"{name!r}: {reason}" for name, reason in left_out[:10])
    return Invalid(
        "no column of numbers is left for features",
        f"Write the features as columns of numbers{f' ({reasons})' if reasons else ''}.",
    )


# ---------------------------------------------------------------------------------------------------------------- names


def _words(name: str) -> tuple[str, ...]:
    """Return the words of a column's name.

    >>> _words("customerID"), _words("E-Mail address"), _words("userid"), _words("Sample Number")
    (('customer', 'id'), ('email', 'address'), ('user', 'id'), ('sample', 'number'))
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", re.sub(r"e[-_ ]mail", "email", name, flags=re.IGNORECASE))
    return tuple(part for word in re.findall(r"[^\W_]+", spaced.lower()) for part in _parts(word))


def _parts(word: str) -> tuple[str, ...]:
    for end in _NAMING:
        if word.endswith(end) and word.removesuffix(end) in _PEOPLE:
            return word.removesuffix(end), end
    return (word.removesuffix("s"),) if word.removesuffix("s") in _PEOPLE else (word,)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
