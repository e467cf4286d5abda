"""What the rows of ``sisa-costs`` say: tables, figures, and checks against the closed forms.

Letters: S shards, R slices, K requests, N data points.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Final

import numpy as np

from cluster.experiments.costs.grid import COLUMNS, cells, closed_form, rows_of_cell, settings
from cluster.experiments.experiment import (
    Check,
    Experiment,
    Figure,
    Panel,
    Report,
    Row,
    Section,
    Series,
    Settings,
    Table,
)

_ERRORS: Final = 3.5
"""Standard errors within which a mean counts as equal: of 20 keys it leaves these at random once in 400 times."""

_TABLE: Final = {(5, 5, 1): 0.147, (20, 1, 8): 0.337, (20, 50, 8): 0.236, (20, 50, 18): 0.447, (10, 10, 10): 0.500,
                 (20, 1, 39): 0.865, (20, 50, 39): 0.704}  # fmt: skip
"""Fractions of one batch by (S, R, K), as computed from the closed form when this system was designed."""

_REMARKS: Final = {
    (20, 50, 39): "20 keys gave 0.698, and 30 others 0.7014 ± 0.0016 (one run, apart from these rows): most of it may"
    " be the choice of keys"
}
"""What else is known of a fraction that differed."""

_HEADLINES: Final = {(20, 50, 8): ("Purchase", 4.63), (20, 50, 18): ("SVHN", 2.45)}
"""Speed-ups that SISA's authors publish, with the K that they took, as far as we recall it."""

_WIDTH: Final = 0.15
"""How far a measured speed-up may be from a published one, whose K is recalled."""

_Place = tuple[int, int]


def report(settings: Settings, rows: Sequence[Row]) -> Report:
    """Return tables, figures and checks."""
    partitions = [(each["shards"], each["slices"]) for each in settings["partitions"]]
    return Report(
        sections=[
            Section(title="What was measured", text=_measured(settings)),
            Section(title="One batch of requests drawn at random", table=_batches(rows, partitions), figure="speed-up"),
            Section(title="One by one, and aimed", text=_aiming(rows), table=_ways(rows, partitions), figure="aimed"),
            Section(title="Processor seconds", text=_overhead(rows), table=_times(rows, partitions), figure="seconds"),
        ],
        figures=_figures(rows, partitions),
        checks=[*_table_checks(rows), *_exact_checks(settings, rows)],
    )


def _measured(settings: Settings) -> str:
    return (
        f"A network of {settings['hidden']} hidden units on {settings['points']:,} pictures of"
        f" {settings['dataset']}, in federations that train and erase with the real engine: journal, quarantine,"
        " retraining from the affected slice, purge. The unit of work is the point-epoch, one data point seen"
        " once in training; a fraction is the work of erasures over that of training all data points that are"
        f" left. 'Engine' means that the erasures were carried out; 'plan' that {settings['plan_draws']} random"
        f" draws under each of {settings['plan_rounds']} partition keys were priced by the product's own plan,"
        " whose prices are the engine's counts to the last point-epoch (a check below); one by one there are a fifth"
        " as many draws. The error of a mean over keys is one standard error. Where it is over two or three rounds of"
        " the engine, it is hardly more than a hint."
    )


def _batches(rows: Sequence[Row], partitions: Sequence[_Place]) -> Table:
    lines = []
    for shards, slices in partitions:
        for size in _sizes(rows, shards, slices, batched=True):
            plan = _of(rows, shards, slices, size, means="plan", batched=True)
            engine = _of(rows, shards, slices, size, means="engine", batched=True)
            expected = closed_form(shards, slices, size, aimed=False, batched=True)
            lines.append(
                [
                    f"{shards} × {slices}",
                    str(size),
                    f"{expected:.3f}",
                    _with_error(plan),
                    _with_error(engine),
                    f"{1 / expected:.2f}",
                    f"{1 / _mean(plan):.2f}" if plan else "–",
                    f"{_mean(engine, 'seconds_fraction'):.3f}" if engine else "–",
                    f"{_seconds_speed_up(engine):.2f}" if engine else "–",
                ]
            )
    return Table(
        columns=["S × R", "K", "closed form", "plan", "engine", "speed-up, closed form", "speed-up, plan",
                 "fraction in seconds", "speed-up in seconds over one network"],
        rows=lines,
    )  # fmt: skip


def _ways(rows: Sequence[Row], partitions: Sequence[_Place]) -> Table:
    lines = []
    for shards, slices in partitions:
        for aimed, batched in ((False, False), (True, True), (True, False)):
            found = [row for row in rows if _is_of(row, shards, slices, aimed, batched)]
            for size in sorted({row["requests"] for row in found}):
                here = [row for row in found if row["requests"] == size]
                plan = [row for row in here if row["means"] == "plan"]
                engine = [row for row in here if row["means"] == "engine"]
                lines.append(
                    [
                        f"{shards} × {slices}",
                        str(size),
                        "aimed" if aimed else "random",
                        "one batch" if batched else "one by one",
                        f"{closed_form(shards, slices, size, aimed=aimed, batched=batched):.2f}",
                        _with_error(plan),
                        _with_error(engine),
                        f"{_mean(engine, 'seconds_fraction'):.2f}" if engine else "–",
                    ]
                )
    return Table(
        columns=["S × R", "K", "requests", "served", "closed form", "plan", "engine", "fraction in seconds"], rows=lines
    )


def _aiming(rows: Sequence[Row]) -> str:
    about = (
        "Aimed requests are for data points of slice 1 of one shard after another. The laboratory can aim since"
        " it has the partition key. Others cannot, unless prices of dry runs or receipts tell them: places are"
        " keyed digests of names. Aiming costs at most 1.5 times as much as chance, one by one; a batch costs at"
        " most one full training however it is aimed. So batching is the defence, and the key only makes aiming"
        " dear."
    )
    parts = [about]
    for shards, slices in dict.fromkeys((row["shards"], row["slices"]) for row in rows if row["means"] == "accounts"):
        counts = [row["accounts"] for row in rows if row["means"] == "accounts" and _at(row, shards, slices)]
        parts.append(
            f"With {shards} × {slices}, somebody who registers accounts without the key has one in slice 1 of"
            f" every shard after {np.mean(counts):,.0f} (± {_error(counts):,.0f}; closed form"
            f" {_accounts(shards, slices):,.0f}), and does not know which they are."
        )
    return "\n\n".join(parts)


def _overhead(rows: Sequence[Row]) -> str:
    engine = [row for row in rows if row["means"] == "engine"]
    work = [row for row in engine if row["point_epochs"]]
    coordinator = 1 - sum(row["worker_seconds"] for row in work) / sum(row["seconds"] for row in work)
    return (
        "Seconds are processor time of everything: reading and checking slices, training, a checkpoint after"
        " every slice, encryption, journal, manifests, rewriting of slice files, purge. The yardstick is one"
        " network without slices that is trained on all data points for as many point-epochs, by the same"
        " trainer. A second that it would not have taken for the same point-epochs counts as overhead. The"
        f" coordinator takes {coordinator:.0%} of the seconds of erasures; the rest of the overhead is the"
        " worker's, and is that of slices: each is read, checked and checkpointed, however few data points it"
        " has. The speed-up in seconds over one network is therefore below that in work, and below 1 where the"
        " network is small and the slices are many: slices pay where training a slice takes longer than its"
        " checkpoint. Against the federation's own full training, which has the same overhead, the fractions in"
        " seconds are near those in work."
    )


def _times(rows: Sequence[Row], partitions: Sequence[_Place]) -> Table:
    lines = []
    for shards, slices in partitions:
        engine = [row for row in rows if row["means"] == "engine" and _at(row, shards, slices)]
        if not engine:
            continue
        batches = [row for row in engine if row["batched"] and not row["aimed"]]
        singles = [row for row in engine if not row["batched"] and not row["aimed"]]
        lines.append(
            [
                f"{shards} × {slices}",
                f"{_mean(engine, 'retrain_seconds'):.2f}",
                f"{_mean(engine, 'training_seconds'):.2f}",
                f"{1 - _per_point_epoch(engine, 'retrain') / _per_point_epoch(engine, 'training'):.0%}",
                f"{_mean(batches, 'overhead_share'):.0%}",
                f"{_mean(singles, 'overhead_share'):.0%}",
            ]
        )
    return Table(
        columns=["S × R", "one network, seconds", "full training, seconds", "overhead of full training",
                 "of random batches", "of random requests one by one"],
        rows=lines,
    )  # fmt: skip


def _per_point_epoch(rows: Sequence[Row], what: str) -> float:
    """Return seconds for a point-epoch: the trainings differ by rounding of the schedule alone."""
    return float(np.mean([row[f"{what}_seconds"] / row["retrain_point_epochs"] for row in rows]))


def _figures(rows: Sequence[Row], partitions: Sequence[_Place]) -> list[Figure]:
    shown = [place for place in ((20, 50), (20, 1), (5, 5)) if place in partitions] or list(partitions[:2])
    sliced = [place for place in shown if place[1] > 1]
    return [
        Figure(
            name="speed-up",
            title="Erasing a batch of K random requests: how many times cheaper than a full training",
            panels=[_speed_up_panel(rows, *place) for place in shown],
        ),
        Figure(
            name="aimed",
            title="Requests aimed at slice 1 of every shard cost at most one training in a batch, K / S of one singly",
            panels=[_aimed_panel(rows, *place) for place in sliced],
        ),
        Figure(
            name="seconds",
            title="What a point-epoch takes in processor seconds",
            panels=[_seconds_panel(rows, partitions)],
        ),
    ]


def _speed_up_panel(rows: Sequence[Row], shards: int, slices: int) -> Panel:
    sizes = _sizes(rows, shards, slices, batched=True)
    planned = [_of(rows, shards, slices, size, means="plan", batched=True) for size in sizes]
    carried = [size for size in sizes if _of(rows, shards, slices, size, means="engine", batched=True)]
    engine = [_of(rows, shards, slices, size, means="engine", batched=True) for size in carried]
    closed = [1 / closed_form(shards, slices, size, aimed=False, batched=True) for size in sizes]
    return Panel(
        title=f"S = {shards}, R = {slices}",
        x="K, requests in the batch",
        y="speed-up over a full training",
        log_x=True,
        log_y=True,
        series=[
            Series(name="closed form", x=sizes, y=closed, is_reference=True),
            Series(name="work, plan", x=sizes, y=[1 / _mean(each) if each else None for each in planned]),
            Series(name="work, engine", x=carried, y=[1 / _mean(each) for each in engine]),
            Series(name="seconds, own training", x=carried, y=[1 / _mean(each, "seconds_fraction") for each in engine]),
            Series(name="seconds, one network", x=carried, y=[_seconds_speed_up(each) for each in engine]),
        ],
    )


def _aimed_panel(rows: Sequence[Row], shards: int, slices: int) -> Panel:
    sizes = _sizes(rows, shards, slices, batched=True)
    series = []
    for batched in (True, False):
        served = "one batch" if batched else "one by one"
        planned = [_of(rows, shards, slices, size, means="plan", batched=batched) for size in sizes]
        random = [_mean(each) if each else None for each in planned]
        series.append(
            Series(name=f"random, {served}, plan", x=sizes, y=random, spread=[_error_of(each) for each in planned])
        )
        aimed = [row for row in rows if _is_of(row, shards, slices, True, batched) and row["means"] == "engine"]  # noqa: FBT003
        series.append(
            Series(
                name=f"aimed, {served}, engine",
                x=sorted({row["requests"] for row in aimed}),
                y=[
                    _mean([row for row in aimed if row["requests"] == size])
                    for size in sorted({row["requests"] for row in aimed})
                ],
            )
        )
        law = [closed_form(shards, slices, size, aimed=True, batched=batched) for size in sizes]
        series.append(Series(name=f"aimed, {served}, closed form", x=sizes, y=law, is_reference=True))
    return Panel(
        title=f"S = {shards}, R = {slices}",
        x="K, requests",
        y="fraction of a full training",
        log_x=True,
        log_y=True,
        series=series,
    )


def _seconds_panel(rows: Sequence[Row], partitions: Sequence[_Place]) -> Panel:
    ways = {
        "full training": None,
        "random batches": (False, True),
        "random, one by one": (False, False),
        "aimed batch": (True, True),
    }
    names = [f"{shards} × {slices}" for shards, slices in partitions]
    series = []
    for name, way in ways.items():
        values: list[float | None] = []
        for shards, slices in partitions:
            here = [row for row in rows if row["means"] == "engine" and _at(row, shards, slices)]
            if way is None:
                found = [row["training_seconds"] / row["retrain_seconds"] for row in here]
            else:
                found = [
                    1 / (1 - row["overhead_share"])
                    for row in here
                    if (row["aimed"], row["batched"]) == way and row["point_epochs"]
                ]
            values.append(float(np.mean(found)) if found else None)
        series.append(Series(name=name, x=names, y=values))
    return Panel(
        title="One network without slices is 1",
        x="S × R",
        y="seconds for a point-epoch, as a multiple",
        kind="bars",
        series=series,
    )


def _table_checks(rows: Sequence[Row]) -> list[Check]:
    found = []
    for (shards, slices, size), expected in _TABLE.items():
        plan = _of(rows, shards, slices, size, means="plan", batched=True)
        what = f"fraction of a batch of K = {size}, S = {shards}, R = {slices}"
        source = "closed form, SISA section IV"
        remark = "; ".join(each for each in (_rounded(slices), _REMARKS.get((shards, slices, size), "")) if each)
        found.append(_check(what, [row["fraction"] for row in plan], expected, source, remark))
    for shards, slices in ((20, 50), (5, 5)):
        for size, batched in ((shards * times, batched) for times in (1, 2, 5) for batched in (True, False)):
            plan = _of(rows, shards, slices, size, means="plan", batched=batched)
            what = f"K = {size} at random {'in a batch' if batched else 'one by one'}, S = {shards}, R = {slices}"
            expected = closed_form(shards, slices, size, aimed=False, batched=batched)
            fractions = [row["fraction"] for row in plan]
            found.append(_check(what, fractions, expected, "closed form", _rounded(slices)))
    for (shards, slices, size), (name, published) in _HEADLINES.items():
        plan = _of(rows, shards, slices, size, means="plan", batched=True)
        ours = 1 / _mean(plan) if plan else None
        found.append(
            Check(
                what=f"speed-up at K = {size}, S = {shards}, R = {slices}: {name}",
                ours=ours,
                expected=published,
                tolerance=f"within {_WIDTH:.0%}",
                holds=None if ours is None else abs(ours / published - 1) <= _WIDTH,
                source="Bourtoule et al. 2021; K as recalled",
                remark=f"work over work; the mean of the draws' speed-ups is {_mean(plan, 'speed_up'):.2f}"
                if plan
                else "",
            )
        )
    return found


def _exact_checks(settings: Settings, rows: Sequence[Row]) -> list[Check]:
    engine = [row for row in rows if row["means"] == "engine"]
    equal = float(np.mean([row["point_epochs"] == row["planned_point_epochs"] for row in engine])) if engine else None
    found = [
        Check(
            what="share of the engine's counts that are the plan's prices",
            ours=equal,
            expected=1.0,
            tolerance="exact",
            holds=None if equal is None else equal == 1.0,
            source="the plan that a federation carries out",
        )
    ]
    for partition in settings["partitions"]:
        shards, slices = partition["shards"], partition["slices"]
        if slices == 1:
            size = max(partition["plan"])
            plan = _of(rows, shards, slices, size, means="plan", batched=False)
            records = [row["point_epochs"] / partition["epochs"] for row in plan]
            expected = (settings["points"] / shards + 1 / (2 * shards) - 1) * size - size**2 / (2 * shards)
            what = f"data points retrained one by one, K = {size}, S = {shards}, R = 1"
            remark = "a request hits a large shard more often: about one data point more for each"
            found.append(_check(what, records, expected, "(N/S + 1/(2S) − 1) K − K²/(2S)", remark))
        counts = [row["accounts"] for row in rows if row["means"] == "accounts" and _at(row, shards, slices)]
        what = f"accounts until one is in slice 1 of every shard, S = {shards}, R = {slices}"
        found.append(_check(what, counts, _accounts(shards, slices), "S R (1 + 1/2 + … + 1/S)"))
        for batched in (True, False):
            aimed = [row for row in engine if _is_of(row, shards, slices, True, batched)]  # noqa: FBT003
            if aimed:
                found.append(_aimed_check(aimed, shards, slices))
    return found


def _aimed_check(aimed: Sequence[Row], shards: int, slices: int) -> Check:
    size, batched = aimed[0]["requests"], aimed[0]["batched"]
    ours, expected = _mean(aimed), closed_form(shards, slices, size, aimed=True, batched=batched)
    return Check(
        what=f"K = {size} aimed {'in a batch' if batched else 'one by one'}, S = {shards}, R = {slices}",
        ours=ours,
        expected=expected,
        tolerance="within 2 %, since shards differ in size",
        holds=abs(ours / expected - 1) <= 0.02,
        source="closed form",
    )


def _check(what: str, values: Sequence[float], expected: float, source: str, remark: str = "") -> Check:
    if not values:
        return Check(what=what, ours=None, expected=expected, tolerance="–", holds=None, source=source)
    ours, width = float(np.mean(values)), _ERRORS * _error(values)
    return Check(
        what=what,
        ours=ours,
        expected=expected,
        tolerance=f"within {_ERRORS} standard errors: {width:.3g}",
        holds=abs(ours - expected) <= width,
        source=source,
        remark=remark,
    )


def _rounded(slices: int) -> str:
    """Return why the mean differs a little from the closed form."""
    many = 50
    return "whole epochs of slices, and their real sizes, take about 0.001 off" if slices == many else ""


def _accounts(shards: int, slices: int) -> float:
    return shards * slices * sum(1 / number for number in range(1, shards + 1))


def _at(row: Row, shards: int, slices: int) -> bool:
    return bool(row["shards"] == shards and row["slices"] == slices)


def _is_of(row: Row, shards: int, slices: int, aimed: bool, batched: bool) -> bool:  # noqa: FBT001
    return _at(row, shards, slices) and row["aimed"] == aimed and row.get("batched") == batched


def _of(rows: Sequence[Row], shards: int, slices: int, size: int, *, means: str, batched: bool) -> list[Row]:
    """Return the rows of random requests, one of each round."""
    return [
        row
        for row in rows
        if row["means"] == means and row["requests"] == size and _is_of(row, shards, slices, False, batched)  # noqa: FBT003
    ]


def _sizes(rows: Sequence[Row], shards: int, slices: int, *, batched: bool) -> list[int]:
    return sorted({row["requests"] for row in rows if _is_of(row, shards, slices, False, batched)})  # noqa: FBT003


def _mean(rows: Sequence[Row], column: str = "fraction") -> float:
    return float(np.mean([row[column] for row in rows]))


def _seconds_speed_up(rows: Sequence[Row]) -> float:
    """Return that of the mean cost, as for work: the mean of the rounds' speed-ups is above it."""
    return _mean(rows, "retrain_seconds") / _mean(rows, "seconds")


def _error(values: Sequence[float]) -> float:
    """Return the standard error of the mean; NaN of a single value."""
    return float(np.std(values, ddof=1)) / sqrt(len(values)) if len(values) > 1 else float("nan")


def _error_of(rows: Sequence[Row]) -> float:
    return _error([row["fraction"] for row in rows]) if len(rows) > 1 else 0.0


def _with_error(rows: Sequence[Row]) -> str:
    if not rows:
        return "–"
    return f"{_mean(rows):.3f} ± {_error_of(rows):.3f}" if len(rows) > 1 else f"{_mean(rows):.3f}"


def _datasets(settings: Settings) -> Sequence[str]:
    return (settings["dataset"],)


SISA_COSTS: Final = Experiment(
    name="sisa-costs",
    summary="What erasures cost, beside the closed form: random and aimed ones, in a batch and one by one.",
    columns=COLUMNS,
    settings=settings,
    cells=cells,
    run=rows_of_cell,
    report=report,
    datasets=_datasets,
)
