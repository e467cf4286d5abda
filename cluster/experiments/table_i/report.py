"""What the rows of ``table-i`` say: a table for each data set, two figures, and the checks of the exact methods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import Final

from cluster.experiments.experiment import Check, Figure, Panel, Report, Row, Section, Series, Settings, Table
from cluster.experiments.membership import chance_deviation, chance_interval
from cluster.experiments.table_i.methods import EXPLICIT_SHARE, METHODS

_FLOOR: Final = 1e-6
"""Where 0, and what is smaller, is drawn on an axis of powers of ten."""
_MEANS_WITHIN: Final = 3.0
_LAW_WITHIN: Final = 0.15
_LAW_FROM: Final = 2000
"""Data points from which on gradients take most of DeltaGrad's time."""

_HEADS: Final = (
    "method",
    "kind in the survey",
    "guarantee",
    "accuracy before",
    "after",
    "of the retrain",
    "one person: time / retrain",
    "all: time / retrain",
    "kept, MB",
    "distance to the retrain",
    "share of the way",
    "nats",
    "membership before",
    "after",
    "rounds",
)


def report(settings: Settings, rows: Sequence[Row]) -> Report:
    """Return what the rows say."""
    sections = [Section(title="How to read the tables", text=_reading(settings))]
    figures = []
    for dataset, data in settings["data"].items():
        found = _by_method(rows, dataset)
        text = (
            f"{data['points']:,} data points of {data['source']}"
            + (f", labels {' and '.join(map(str, data['labels']))}" if data["labels"] else ", ten classes")
            + f"; {data['erased']} people with wrong labels are erased, and {data['never_seen']:,} with wrong"
            " labels are never seen. Means and standard deviations over the rounds."
        )
        table = Table(columns=_HEADS, rows=[_line(name, each) for name, each in found.items()])
        figures += [_costs(dataset, found), _membership(dataset, found)]
        sections.append(Section(title=f"Table for {dataset}", text=text, table=table))
        sections += [Section(title=figure.title, figure=figure.name) for figure in figures[-2:]]
    proofs = [[name, METHODS[name].proves] for name in settings["methods"]]
    sections.append(Section(title="What each method proves", table=Table(columns=["method", "proves"], rows=proofs)))
    failures = [row for row in rows if row["note"]]
    if failures:
        sections.append(Section(title="Notes", table=_notes(failures)))
    return Report(sections=sections, figures=figures, checks=_checks(settings, rows))


def _reading(settings: Settings) -> str:
    ends = [chance_interval(data["erased"], data["never_seen"]) for data in settings["data"].values()]
    intervals = ", ".join(
        f"{low:.3f} to {high:.3f} for {name}" for name, (low, high) in zip(settings["data"], ends, strict=True)
    )
    return (
        "Times are processor time of one thread, and ratios are of two times in one task. First one person is erased,"
        " then all others in one request; methods without a federation erase all at once, from what was learned."
        " *Kept* is what later erasures need beside the data points. *Share of the way* is the distance to the retrain,"
        " by the distance without any erasure: 1 where nothing was done, 0 where the parameters are the retrain's, to"
        " the byte for exact methods. *Membership* is the probability that an erased data point has a higher score"
        " log(p / (1 - p)) of its label than a never-seen one; federations are tested on the constituent of the data"
        f" point's shard, which the product shows to nobody. At random it is in 95 % of the cases {intervals}. Where it"
        " is not above this *before* the erasure, the test has no power, and what it finds after the erasure says"
        " nothing. A test with power that finds nothing proves nothing either: only the guarantee does."
        " An erasure by a federation includes journal, receipt, purge and rewriting of slice files. Its retrain is the"
        " training alone, without reading the source again; so learners that train within milliseconds, such as"
        " naive-bayes, take longer to erase than to learn again. Rounds draw from one pool of data, so that some data"
        " points are in more than one of them: spreads over other data may be larger."
        " The number of steps of softmax regression, and the penalties, noise, strengths and trust of the methods"
        " without a federation and of sisa-certified, were chosen among a few values each on the data of the first"
        " round, which is among the rounds here: other data may suit them less."
    )


def _by_method(rows: Sequence[Row], dataset: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["dataset"] == dataset:
            found.setdefault(row["method"], []).append(row)
    return found


def _values(rows: Sequence[Row], column: str) -> list[float]:
    return [row[column] for row in rows if row[column] is not None]


def _mean(rows: Sequence[Row], column: str) -> float | None:
    values = _values(rows, column)
    return fmean(values) if values else None


def _spread(rows: Sequence[Row], column: str) -> float:
    values = _values(rows, column)
    return stdev(values) if len(values) > 1 else 0.0


def _line(name: str, rows: Sequence[Row]) -> list[str]:
    """Return the table's line of a method."""
    measured = [row for row in rows if row["auc_after"] is not None]
    if not measured:
        return [name, rows[0]["kind"], str(rows[0]["guarantee"] or "–"), *["–"] * 11, "0: see the notes"]
    has_power = sum(bool(row["power"]) for row in measured)
    power = "" if has_power == len(measured) else f" (no power in {len(measured) - has_power})"
    inside = sum(row["auc_low"] <= row["auc_after"] <= row["auc_high"] for row in measured)
    storage = _mean(measured, "storage_bytes")
    return [
        name,
        measured[0]["kind"],
        measured[0]["guarantee"],
        _text(measured, "accuracy_before"),
        _text(measured, "accuracy_after"),
        _text(measured, "retrain_accuracy"),
        _text(measured, "one_ratio"),
        _text(measured, "ratio"),
        "–" if storage is None else f"{storage / 1e6:.3g}",
        _text(measured, "distance"),
        _text(measured, "relative_distance"),
        _text(measured, "nats"),
        f"{_text(measured, 'auc_before')}{power}",
        f"{_text(measured, 'auc_after')}, {inside} of {len(measured)} as at random",
        str(len(measured)),
    ]


def _text(rows: Sequence[Row], column: str) -> str:
    """Return mean and standard deviation; a dash where there is no value."""
    mean = _mean(rows, column)
    if mean is None:
        return "–"
    if mean == 0:
        return "0"
    is_plain = 1e-3 <= abs(mean) < 1e4
    digits = max(0, 2 - math.floor(math.log10(abs(mean))))
    text = f"{mean:.{digits}f}" if is_plain else f"{mean:.2g}"
    if len(_values(rows, column)) == 1:
        return text
    spread = _spread(rows, column)
    return f"{text} ± {spread:.{digits}f}" if is_plain else f"{text} ± {spread:.1g}"


def _costs(dataset: str, found: dict[str, list[Row]]) -> Figure:
    """Return cost against what is left: one point for each method."""
    panels = [
        Panel(
            title="what is left of the way to the retrain, by the cost of one person (0 is drawn at 1e-6)",
            x="time to erase one person / of a retrain",
            y="share of the way, after all are erased",
            kind="points",
            log_x=True,
            log_y=True,
            series=[_point(name, rows, "one_ratio", "relative_distance") for name, rows in found.items()],
        ),
        Panel(
            title="membership after the erasure, by the cost of all",
            x="time to erase all / of a retrain",
            y="probability that an erased one scores higher",
            kind="points",
            log_x=True,
            series=[_point(name, rows, "ratio", "auc_after") for name, rows in found.items()],
        ),
    ]
    return Figure(name=f"costs-{dataset}", title=f"{dataset}: what an erasure costs, and what it leaves", panels=panels)


def _point(name: str, rows: Sequence[Row], cost: str, column: str) -> Series:
    ratio, value = _mean(rows, cost), _mean(rows, column)
    if ratio is None or value is None:
        return Series(name=name, x=[1.0], y=[None])
    return Series(name=name, x=[max(ratio, _FLOOR)], y=[max(value, _FLOOR)])


def _membership(dataset: str, found: dict[str, list[Row]]) -> Figure:
    """Return membership before and after the erasure, with spreads, beside the interval of chance."""
    names = list(found)
    low, high = next(
        ((row["auc_low"], row["auc_high"]) for rows in found.values() for row in rows if row["auc_low"] is not None),
        (0.5, 0.5),
    )
    series = [
        Series(
            name=words,
            x=names,
            y=[_mean(found[name], column) for name in names],
            spread=[_spread(found[name], column) for name in names],
        )
        for words, column in (("before", "auc_before"), ("after", "auc_after"))
    ]
    ends = [
        Series(name=words, x=names, y=[end] * len(names), is_reference=True)
        for words, end in (("at random: lowest", low), ("at random: highest", high))
    ]
    panel = Panel(
        title="erased against never-seen people with wrong labels",
        x="method",
        y="probability that an erased one scores higher",
        kind="points",
        series=[*series, *ends],
    )
    return Figure(name=f"membership-{dataset}", title=f"{dataset}: membership before and after", panels=[panel])


def _notes(rows: Sequence[Row]) -> Table:
    lines = {(row["dataset"], row["method"], row["note"]): [0] for row in rows}
    for row in rows:
        lines[row["dataset"], row["method"], row["note"]][0] += 1
    return Table(
        columns=["data set", "method", "note", "rounds"],
        rows=[[*key, str(count)] for key, (count,) in lines.items()],
    )


def _checks(settings: Settings, rows: Sequence[Row]) -> list[Check]:
    checks = []
    for dataset, data in settings["data"].items():
        measured = [row for row in rows if row["dataset"] == dataset and row["auc_after"] is not None]
        exact = [row for row in measured if METHODS[row["method"]].is_exact]
        checks += _exact_checks(dataset, data["erased"], data["never_seen"], exact)
        checks += _law_checks(dataset, data["erased"], data["points"], measured)
    return checks


def _exact_checks(dataset: str, erased: int, never_seen: int, rows: Sequence[Row]) -> list[Check]:
    """Return what must hold of exact methods, however many rows there are, dependent or not."""
    deviation = chance_deviation(erased, never_seen)
    distances = [math.inf if row["distance"] is None else row["distance"] for row in rows]
    farthest = max((abs(row["auc_after"] - 0.5) / deviation for row in rows), default=None)
    most = NormalDist().inv_cdf(1 - 0.025 / max(len(rows), 1))
    rounds = len({row["round"] for row in rows})
    mean = abs(fmean(row["auc_after"] for row in rows) - 0.5) / deviation * math.sqrt(rounds) if rows else None
    return [
        Check(
            what=f"{dataset}: largest distance to the retrain of an exact method",
            ours=max(distances, default=None),
            expected=0.0,
            tolerance="exact",
            holds=None if not distances else max(distances) == 0,
            source="the guarantee exact",
        ),
        Check(
            what=f"{dataset}: farthest membership of an exact method from 0.5, in deviations",
            ours=farthest,
            expected=most,
            tolerance=f"at most: where all of {len(rows)} rows are in 95 % of the cases",
            holds=None if farthest is None else farthest <= most,
            source="Mann and Whitney 1947; Bonferroni",
        ),
        Check(
            what=f"{dataset}: mean membership of exact methods from 0.5, in deviations of a mean over the rounds",
            ours=mean,
            expected=_MEANS_WITHIN,
            tolerance="at most",
            holds=None if mean is None else mean <= _MEANS_WITHIN,
            source="Mann and Whitney 1947; methods of a round are taken as one",
        ),
    ]


def _law_checks(dataset: str, erased: int, points: int, rows: Sequence[Row]) -> list[Check]:
    """Return DeltaGrad's time beside the law of its cost."""
    share = erased / points
    expected = (EXPLICIT_SHARE + (1 - EXPLICIT_SHARE) * share) / (1 - share)
    ours = _mean([row for row in rows if row["method"] == "deltagrad"], "ratio") if points >= _LAW_FROM else None
    return [
        Check(
            what=f"{dataset}: DeltaGrad's time by that of a retrain",
            ours=ours,
            expected=expected,
            tolerance=f"within {_LAW_WITHIN:.0%}",
            holds=None if ours is None else abs(ours / expected - 1) <= _LAW_WITHIN,
            source="(f + (1 - f) r) / (1 - r), with the share f of explicit steps and the share r of the erased",
            remark="With few data points, what a step costs beside its gradients counts, too: with 8,000 of ten classes"
            " it was 0.27 (one run, apart from these rows).",
        )
    ]
