"""Published and earlier figures beside ours.

Sources: the survey (section VI), the result spreadsheets of DeltaGrad's authors (github.com/thuwuyinjun/DeltaGrad), and
an earlier run of this project's authors on the same data, with other code ("earlier run").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from cluster.experiments.experiment import Check, Row, Settings
from cluster.experiments.section_vi.descents import recipe_name, variant_name
from cluster.experiments.section_vi.grid import (
    BATCH_RECIPE,
    EXPLICIT,
    FULL_BATCH_RECIPE,
    NET,
    OFTEN,
    SOFTMAX,
    STOPPED_RECIPE,
    SURVEY_RECIPE,
)
from cluster.experiments.section_vi.removal import IID, SKEWED
from cluster.experiments.section_vi.summary import (
    RowSet,
    break_even,
    column,
    crossing,
    explicit_share,
    law,
    of_class,
    time_share,
)

_SURVEY: Final = "survey"
_AUTHORS: Final = "DeltaGrad's authors"
_EARLIER: Final = "earlier run"
_LAW: Final = "cost law"

_ACCURACY: Final = column("accuracy")
_DISTANCE: Final = column("distance")

_EARLIER_IID: Final = {0.01: 0.8742, 0.1: 0.8725, 0.2: 0.8728, 0.3: 0.8728}
"""Accuracy of the full retrain by removed share."""
_EARLIER_SKEWED: Final = {
    0.01: (0.8733, 0.876, 0.849),
    0.1: (0.8720, 0.835, 0.863),
    0.2: (0.8593, 0.674, 0.875),
    0.3: (0.7955, 0.000, 0.890),
}
"""The same, with the accuracies of the classes 4 and 9."""
_EARLIER_DISTANCES: Final = {
    0.001: (0.0042, 9.4e-5),
    0.01: (0.0137, 1.7e-4),
    0.1: (0.045, 1.1e-3),
    0.3: (0.090, 4.9e-3),
}
"""From the trained parameters to the retrained ones, and from those of DeltaGrad to them."""
_AUTHORS_DISTANCES: Final = {
    0.001: (0.00438, 8.0e-5, 4e-4, 2.3e-5),
    0.01: (0.01384, 2.4e-4, 1.4e-3, 8.7e-5),
    0.05: (0.0319, 7.2e-4, 3.4e-3, 2e-4),
    0.1: (0.0465, 1.1e-3, 5.4e-3, 3e-4),
    0.2: (0.0717, 2.0e-3, 1.0e-2, 5.2e-4),
}
"""The same with mini-batches: DeltaGrad with a period of 5, 10 and 2."""
_AUTHORS_NET: Final = {0.001: (1.3e-2, 5.7e-4, 2.4e-3), 0.01: (4.6e-2, 5e-4, 7.4e-3)}
"""For a network after 400 full-batch steps: the retrain, T0=2 j0=100, T0=5 j0=50."""


def checks_of(settings: Settings, rows: list[Row]) -> list[Check]:
    """Return all comparisons; those whose rows these settings lack say so."""
    mnist = RowSet(rows).where(dataset="mnist")
    survey = mnist.where(model=SOFTMAX, recipe=recipe_name(SURVEY_RECIPE))
    return [
        *_of_the_survey(survey, mnist),
        *_exactness(RowSet(rows)),
        *_accuracies(survey),
        *_net_accuracies(mnist.where(model=NET)),
        *_distances(survey),
        *_batch_distances(mnist.where(model=SOFTMAX, recipe=recipe_name(BATCH_RECIPE))),
        *_net_distances(mnist.where(model=NET, recipe="400 full steps"), _step_seconds(mnist)),
        *_times(survey),
        *_sisa_costs(RowSet(rows).where(dataset=settings["main"])),
    ]


def _of_the_survey(rows: RowSet, mnist: RowSet) -> Iterator[Check]:
    skewed = rows.where(method="deltagrad", variant=variant_name(OFTEN), scenario=SKEWED, ratio=0.3)
    iid = rows.where(method="deltagrad", variant=variant_name(OFTEN), scenario=IID, ratio=0.3)
    trained = rows.where(method="trained")
    yield _near("accuracy before any deletion", trained.mean(_ACCURACY), 0.8735, 0.003, _SURVEY)
    yield _near("accuracy of DeltaGrad, iid 0.3", iid.mean(_ACCURACY), 0.8725, 0.003, _SURVEY)
    yield _near("accuracy of DeltaGrad, non-iid 0.3", skewed.mean(_ACCURACY), 0.7921, 0.006, _SURVEY)
    before, after = trained.mean(of_class("9")), skewed.mean(of_class("9"))
    yield _check(
        "rise of class 9 with DeltaGrad, non-iid 0.3",
        None if before is None or after is None else after - before,
        0.883 - 0.829,
        "above 0",
        lambda ours: ours > 0,
        _SURVEY,
    )
    full = mnist.where(model=SOFTMAX, recipe=recipe_name(FULL_BATCH_RECIPE), method="trained")
    yield _near("accuracy after 120 full steps, rate 0.1, penalty 0.005", full.mean(_ACCURACY), 0.874, 0.003, _AUTHORS)
    batched = mnist.where(model=SOFTMAX, recipe=recipe_name(BATCH_RECIPE), method="trained")
    yield _near("accuracy with batches of 16,384", batched.mean(_ACCURACY), 0.8757, 0.003, _AUTHORS)


def _exactness(rows: RowSet) -> Iterator[Check]:
    explicit = rows.where(method="deltagrad").values(_if_explicit)
    yield _check(
        "largest distance between DeltaGrad with T0=1 and the retrain",
        max(explicit, default=None),
        1.6e-14,
        "at most 1e-10",
        lambda ours: ours <= 1e-10,
        _AUTHORS,
    )
    exact = [float(row["exact"]) for row in rows.all if row.get("exact") is not None]
    yield _check(
        "share of erasures from SISA and forests that end in the bytes of a full retrain",
        sum(exact) / len(exact) if exact else None,
        1.0,
        "equal",
        lambda ours: ours == 1,
        "the guarantee",
    )


def _if_explicit(row: Row) -> float | None:
    return row.get("distance") if (row.get("variant") or "").startswith(f"T0={EXPLICIT[0]} ") else None


def _accuracies(rows: RowSet) -> Iterator[Check]:
    for ratio, expected in _EARLIER_IID.items():
        found = rows.where(method="full-retrain", scenario=IID, ratio=ratio)
        yield _near(f"accuracy of the retrain, iid {ratio}", found.mean(_ACCURACY), expected, 0.003, _EARLIER)
    for ratio, (overall, four, nine) in _EARLIER_SKEWED.items():
        found = rows.where(method="full-retrain", scenario=SKEWED, ratio=ratio)
        yield _near(f"accuracy of the retrain, non-iid {ratio}", found.mean(_ACCURACY), overall, 0.006, _EARLIER)
        yield _near(f"class 4 of the retrain, non-iid {ratio}", found.mean(of_class("4")), four, 0.03, _EARLIER)
        yield _near(f"class 9 of the retrain, non-iid {ratio}", found.mean(of_class("9")), nine, 0.015, _EARLIER)


def _net_accuracies(rows: RowSet) -> Iterator[Check]:
    stopped = rows.where(recipe=recipe_name(STOPPED_RECIPE))
    trained, retrained = stopped.where(method="trained"), stopped.where(method="full-retrain", ratio=0.3)
    yield _near("accuracy of the network after 42 steps", trained.mean(_ACCURACY), 0.8735, 0.006, _EARLIER)
    yield _near("its class 9 before any deletion", trained.mean(of_class("9")), 0.830, 0.015, _EARLIER)
    yield _near("its class 9 retrained, non-iid 0.3", retrained.mean(of_class("9")), 0.885, 0.015, _EARLIER)
    longer = rows.where(recipe=recipe_name(SURVEY_RECIPE), method="trained").mean(_ACCURACY)
    check = _near("accuracy of the network after 80 steps", longer, 0.89, 0.006, _EARLIER)
    yield _unmeasured(check, SURVEY_RECIPE["epochs"], _step_seconds(rows), 2, "training and retrain")


def _distances(rows: RowSet) -> Iterator[Check]:
    for ratio, (full, approximate) in _EARLIER_DISTANCES.items():
        yield _within("distance to the retrain, iid", ratio, _retrain(rows, IID, ratio), full, _EARLIER)
        ours = _deltagrad(rows, IID, ratio, OFTEN)
        yield _within("distance of DeltaGrad to the retrain, iid", ratio, ours, approximate, _EARLIER)
    skewed = _deltagrad(rows, SKEWED, 0.3, OFTEN)
    yield _within("distance of DeltaGrad to the retrain, non-iid", 0.3, skewed, 48 * 4.9e-3, _EARLIER)
    full_distance = _retrain(rows, SKEWED, 0.3)
    share = None if skewed is None or full_distance is None else skewed / full_distance
    yield _within("the same as a share of the way to the retrain, non-iid", 0.3, share, 0.25, _EARLIER)


def _batch_distances(rows: RowSet) -> Iterator[Check]:
    for ratio, (full, *others) in _AUTHORS_DISTANCES.items():
        yield _within("batches: distance to the retrain", ratio, _retrain(rows, IID, ratio), full, _AUTHORS)
        for period, expected in zip((5, 10, 2), others, strict=True):
            ours = _deltagrad(rows, IID, ratio, (period, 10, 2))
            yield _within(f"batches: distance of DeltaGrad, T0={period}", ratio, ours, expected, _AUTHORS)


def _net_distances(rows: RowSet, step_seconds: float | None) -> Iterator[Check]:
    variants = ((2, 100, 2), (5, 50, 2))
    explicit = sum(explicit_share(_LONG_STEPS, period, burn_in) for period, burn_in, _ in variants)
    for ratio, (full, *others) in _AUTHORS_NET.items():
        checks = [_within("400 steps: distance to the retrain", ratio, _retrain(rows, IID, ratio), full, _AUTHORS)]
        for variant, expected in zip(variants, others, strict=True):
            what = f"400 steps: distance of DeltaGrad, {variant_name(variant)}"
            checks.append(_within(what, ratio, _deltagrad(rows, IID, ratio, variant), expected, _AUTHORS))
        for check in checks:
            yield _unmeasured(check, _LONG_STEPS, step_seconds, 2 + explicit, "training, retrain and both variants")


def _step_seconds(rows: RowSet) -> float | None:
    """Return the processor seconds of a full step of the network on all data points."""
    found = rows.where(model=NET, recipe=recipe_name(STOPPED_RECIPE), method="trained").mean(column("seconds"))
    return None if found is None else found / STOPPED_RECIPE["epochs"]


def _unmeasured(check: Check, steps: int, step_seconds: float | None, trainings: float, parts: str) -> Check:
    """Return the check; without a value, with how long one ratio takes: ``trainings`` is the work of its parts."""
    if check.holds is not None or step_seconds is None:
        return check
    minutes = steps * trainings * step_seconds / 60
    remark = (
        f"a step took {step_seconds:.1f} s of processor time in the training of {STOPPED_RECIPE['epochs']} steps; by"
        f" that, {parts} take {minutes:.0f} minutes for one ratio"
    )
    return replace(check, remark=remark)


_LONG_STEPS: Final = 400
"""Number of steps for the network of DeltaGrad's authors."""


def _times(rows: RowSet) -> Iterator[Check]:
    found = rows.where(method="deltagrad", variant=variant_name(OFTEN), scenario=IID)
    explicit = explicit_share(SURVEY_RECIPE["epochs"], OFTEN[0], OFTEN[1])
    ratios = found.distinct("ratio") or [0.001, 0.3, 0.5]
    shares = {ratio: found.where(ratio=ratio).mean(time_share) for ratio in ratios}
    for ratio, share in shares.items():
        what = f"time of DeltaGrad as a share of the retrain's, iid {ratio}"
        yield _close(what, share, law(explicit, ratio), 0.15, _LAW)
    for ratio, expected in ((0.001, 42.19 / 12.53), (0.3, 29.15 / 21.22)):
        share = shares.get(ratio)
        what = f"how many times as fast as a retrain DeltaGrad is, iid {ratio}"
        yield _close(what, None if share is None else 1 / share, expected, 0.15, _SURVEY)
    crossed = crossing(list(shares), list(shares.values()))
    yield _near("removed share where DeltaGrad is as slow as a retrain", crossed, break_even(explicit), 0.05, _LAW)


def _sisa_costs(rows: RowSet) -> Iterator[Check]:
    sisa = rows.where(method="sisa", scenario=IID, model=SOFTMAX)
    for variant in sisa.distinct("variant"):
        for ratio in sisa.where(variant=variant).distinct("ratio"):
            found = sisa.where(variant=variant, ratio=ratio)
            expected, removed = found.mean(column("expected_share")), found.mean(column("removed"))
            if expected is not None and removed is not None and removed >= _ENOUGH:
                what = f"work of SISA, {variant}, {removed:,.0f} data points, as a share of its retrain"
                yield _close(what, found.mean(column("work_share")), expected, 0.15, "closed form")


_ENOUGH: Final = 20
"""Data points in a batch from which on one draw is close to the expected cost."""


def _retrain(rows: RowSet, scenario: str, ratio: float) -> float | None:
    return rows.where(method="full-retrain", scenario=scenario, ratio=ratio).mean(_DISTANCE)


def _deltagrad(rows: RowSet, scenario: str, ratio: float, variant: tuple[int, ...]) -> float | None:
    found = rows.where(method="deltagrad", scenario=scenario, ratio=ratio, variant=variant_name(variant))
    return found.mean(_DISTANCE)


def _near(what: str, ours: float | None, expected: float, by: float, source: str) -> Check:
    return _check(what, ours, expected, f"within {by}", lambda value: abs(value - expected) <= by, source)


def _close(what: str, ours: float | None, expected: float, share: float, source: str) -> Check:
    def holds(value: float) -> bool:
        return abs(value - expected) <= share * expected

    return _check(what, ours, expected, f"within {share:.0%}", holds, source)


def _within(what: str, ratio: float, ours: float | None, expected: float, source: str) -> Check:
    def holds(value: float) -> bool:
        return expected / 2 <= value <= 2 * expected

    return _check(f"{what} {ratio}", ours, expected, "within a factor of 2", holds, source)


def _check(what: str, ours: float | None, expected: float, tolerance: str, holds: Any, source: str) -> Check:
    return Check(
        what=what,
        ours=ours,
        expected=expected,
        tolerance=tolerance,
        holds=None if ours is None else holds(ours),
        source=source,
        remark=_REMARKS.get(what, ""),
    )


_EXTRAPOLATED: Final = "the earlier figure was extrapolated from 20,000 data points"
_REMARKS: Final[Mapping[str, str]] = {
    "accuracy of the network after 42 steps": _EXTRAPOLATED,
    "accuracy of the network after 80 steps": _EXTRAPOLATED,
}
"""Why ours differs, where it does."""
