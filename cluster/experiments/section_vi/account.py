"""What the report says of the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from cluster.experiments.experiment import Report, Row, Section, Settings, Table
from cluster.experiments.section_vi.checks import checks_of
from cluster.experiments.section_vi.descents import recipe_name, variant_name
from cluster.experiments.section_vi.federations import federation_name, federation_recipe
from cluster.experiments.section_vi.grid import CAREFUL, NET, OFTEN, SOFTMAX, STOPPED_RECIPE, SURVEY_RECIPE
from cluster.experiments.section_vi.pictures import figures_of
from cluster.experiments.section_vi.removal import IID, SKEWED
from cluster.experiments.section_vi.summary import (
    RowSet,
    RowValue,
    break_even,
    column,
    crossing,
    explicit_share,
    law,
    of_class,
    time_share,
)

_WHAT_RAN: Final = """\
"Learn to Unlearn" (Qu et al., section VI) measures DeltaGrad on MNIST and publishes no code for it. Here a model is \
trained, a share of its data points leaves, and the result is compared with a full retrain on the data points that \
are left. The survey's recipe has full batches, pixels from 0 to 1, an L2 factor of 0.001, and a learning rate of \
0.2 that becomes 0.1 at half of the steps. In the scenario iid all data points are equally likely to leave. In \
non-iid, 30 % of those that leave are of one class, and the others are drawn from all other classes. A keyed order by \
scenario and round decides which ones leave, so a larger share contains a smaller one.

SISA trains with mini-batches, and its ensemble is another model. Compare its time and its change with its own full \
retrain, not its accuracy with that of the descents. Times are processor time of one thread; every share of two \
times is from one task. Standard deviations are over rounds. Softmax regression starts from zeros, so with full \
batches its rounds differ only in which data points leave; they say nothing of other test data.

The survey has 20 rounds. To save time, this run has fewer, and parts of it have fewer ratios:"""

_WHICH_MODEL: Final = """\
The survey does not say whether its figures are of softmax regression or of the network 784-300-10: **it is inferred \
here**. Three facts point to softmax regression: 80 steps reach the survey's accuracy, the survey's times fit the \
law below for T0=5 and j0=10 at 80 steps, and the entry point that DeltaGrad's authors published runs nothing else. \
One fact points to the network: class 9 of a network that is stopped after 42 steps is closer to the survey's. Both \
models are below."""

_CLASSES: Final = """\
The survey reports the mean and class 9, which gains. The table has all classes at the removed share 0.3, non-iid. \
The mean hides that class 4 is gone, since most of its data points left. A full retrain by the same steps \
loses it as well, so the approximation is not the reason. How much is lost depends on how a model learns: SISA and \
forests are as exact, and what they still recognise of the class is in their lines."""

_TIMES: Final = """\
A share f of DeltaGrad's steps is explicit. With the removed share p, its work is [f + (1 - f)p]/(1 - p) of a full \
retrain's; from p = (1 - f)/(2 - f) on, a retrain is cheaper. SISA and forests are compared with a full retrain of \
their own federation on the data points that are left. SISA's closed form (`shards.cost.batch_fraction`) counts the \
training alone, for data points that leave at random. The measured time also includes rewriting the slices and the \
journal, which a retrain does not need; so a large erasure takes longer than a retrain. SISA is cheap for few data \
points in a batch and costs as much as a retrain from a few per shard on. DeltaGrad's cost starts at f and grows \
with the share. The checks below compare SISA's work with its closed form for batches of 20 and more, since a few \
random data points are far from the mean."""

_DISTANCES: Final = """\
Equal accuracy does not mean equal parameters. "Before to retrain" is the distance from the trained parameters to \
the retrained ones, which is that of doing nothing; the other columns have the distance of DeltaGrad's parameters to \
the retrained ones. SISA's constituents and forests are compared by digest: their bytes are those of the retrain. A \
distance does not measure what parameters reveal of the erased data points. It shows that DeltaGrad is not a retrain \
unless every step is explicit (T0=1)."""

_PROVES: Final = """\
* A **full retrain**, **SISA** and the **forest** are exact: they end in what a training without the erased data \
points gives. SISA and forests are trained by this product's engine, and each erasure was compared with a retrain by \
digest.
* **DeltaGrad** is approximate and proves nothing about a single model. Its authors bound its error for strongly \
convex losses, by terms that vanish faster than the removed share. A network is not convex. Its cache depends on the \
erased data points; the one that replaces it was made with estimates from it, and is not free of them.
* Accuracy does not show for any method that something was erased."""


def report_of(settings: Settings, rows: Sequence[Row]) -> Report:
    """Return the report."""
    main = RowSet(list(rows)).where(dataset=settings["main"])
    survey = main.where(recipe=recipe_name(SURVEY_RECIPE))
    softmax = survey.where(model=SOFTMAX)
    net = main.where(model=NET, recipe=recipe_name(STOPPED_RECIPE))
    sections = [
        Section(title="What was run", text=_WHAT_RAN, table=_studies(settings)),
        Section(title="Which model it was", text=_WHICH_MODEL, table=_models(softmax, net)),
        Section(title="Accuracy", table=_accuracies(softmax, net), figure="accuracy"),
        Section(
            title="Which class is gone", text=_classes(softmax, net), table=_by_class(main, settings), figure="classes"
        ),
        Section(title="Time", text=f"{_TIMES}\n\n{_crossings(softmax)}", table=_times(softmax, net), figure="time"),
        Section(title="SISA and forests", table=_federations(main)),
        Section(
            title="Distance",
            text=" ".join([_DISTANCES, *_failures(RowSet(list(rows)))]),
            table=_distances(softmax, net),
            figure="distance",
        ),
        *_others(RowSet(list(rows)), settings),
        Section(title="What each method proves", text=_PROVES),
        *_notes(rows),
    ]
    every = list(rows)
    return Report(sections=sections, figures=figures_of(settings, every), checks=checks_of(settings, every))


def _studies(settings: Settings) -> Table:
    """Return what was run, and how often."""
    lines = []
    for study in [*settings["descents"], *settings["federations"]]:
        if "recipe" in study:
            methods = ", ".join(["retrain", *(f"DeltaGrad {variant_name(each)}" for each in study["variants"])])
            recipe = recipe_name(study["recipe"])
        else:
            methods = federation_name(study["tables"])
            recipe = federation_recipe(study["tables"])
        ratios = [", ".join(map(str, study["cases"].get(scenario, ()))) or "–" for scenario in (IID, SKEWED)]
        if study.get("counts"):
            ratios[0] += f"; {', '.join(map(str, study['counts']))} data points"
        lines.append([study["dataset"], study["model"], recipe, methods, *ratios, str(len(study["rounds"]))])
    return Table(
        columns=["data", "model", "recipe", "methods", "removed, iid", "removed, non-iid", "rounds"], rows=lines
    )


def _models(softmax: RowSet, net: RowSet) -> Table:
    named = [("softmax, 80 steps", softmax), ("network, stopped after 42 steps", net)]
    lines = [["survey", "0.8735", "0.7921", "0.829", "0.883"]]
    for name, rows in named:
        trained, retrained = rows.where(method="trained"), rows.where(method="full-retrain", scenario=SKEWED, ratio=0.3)
        if len(rows):
            lines.append(
                [
                    name,
                    _number(trained.mean(column("accuracy"))),
                    _number(retrained.mean(column("accuracy"))),
                    _number(trained.mean(of_class("9"))),
                    _number(retrained.mean(of_class("9"))),
                ]
            )
    return Table(columns=["model", "accuracy before", "retrained, non-iid 0.3", "class 9 before", "after"], rows=lines)


def _accuracies(softmax: RowSet, net: RowSet) -> Table:
    shown = [
        ("softmax, retrain", softmax.where(method="full-retrain")),
        ("softmax, DeltaGrad", softmax.where(method="deltagrad", variant=variant_name(OFTEN))),
        ("network, retrain", net.where(method="full-retrain")),
        ("network, DeltaGrad T0=2", net.where(method="deltagrad", variant=variant_name(CAREFUL))),
    ]
    return _against_ratio(shown, column("accuracy"), 4)


def _classes(softmax: RowSet, net: RowSet) -> str:
    """Return what the classes say, with those that DeltaGrad harms and a retrain does not."""
    parts = [_CLASSES]
    for name, rows, variant in (("softmax regression", softmax, OFTEN), ("the network", net, CAREFUL)):
        found = rows.where(scenario=SKEWED, ratio=0.3)
        retrained, near = found.where(method="full-retrain"), found.where(variant=variant_name(variant))
        for each in sorted({each for row in near.all for each in row.get("per_class") or {}}):
            ours, expected = near.mean(of_class(each)), retrained.mean(of_class(each))
            if ours is not None and expected is not None and expected - ours > _HARMED:
                parts.append(
                    f"DeltaGrad's error harms class {each} of {name}: {ours:.3f}, where its retrain has {expected:.3f}."
                )
    return " ".join(parts)


_HARMED: Final = 0.05
"""By how much a class of DeltaGrad is below the same of a retrain, where the report names it."""


def _by_class(main: RowSet, settings: Settings) -> Table:
    softmax = main.where(model=SOFTMAX, recipe=recipe_name(SURVEY_RECIPE))
    net = main.where(model=NET, recipe=recipe_name(STOPPED_RECIPE))
    at = {"scenario": SKEWED, "ratio": 0.3}
    federations = [row for row in main.where(**at).all if row["method"] in {"sisa", "forest"}]
    named: dict[str, list[Row]] = {}
    for row in federations:
        named.setdefault(f"{row['method']} {row['variant']}, {row['model']}", []).append(row)
    shown = [
        ("softmax, before", softmax.where(method="trained")),
        ("softmax, retrain", softmax.where(method="full-retrain", **at)),
        ("softmax, DeltaGrad", softmax.where(method="deltagrad", variant=variant_name(OFTEN), **at)),
        ("network, before", net.where(method="trained")),
        ("network, retrain", net.where(method="full-retrain", **at)),
        ("network, DeltaGrad T0=2", net.where(method="deltagrad", variant=variant_name(CAREFUL), **at)),
        *((name, RowSet(rows)) for name, rows in named.items()),
    ]
    classes = sorted({name for row in main.all for name in row.get("per_class") or {}})
    lines = [
        [name, _number(rows.mean(column("accuracy")), 3), *(_number(rows.mean(of_class(each)), 3) for each in classes)]
        for name, rows in shown
        if len(rows)
    ]
    lost = str(settings["skewed_class"])
    return Table(columns=["", "all", *(f"**{each}**" if each == lost else each for each in classes)], rows=lines)


def _crossings(softmax: RowSet) -> str:
    found = softmax.where(method="deltagrad", scenario=IID, variant=variant_name(OFTEN))
    ratios = found.distinct("ratio")
    measured = crossing(ratios, [found.where(ratio=ratio).mean(time_share) for ratio in ratios])
    explicit = explicit_share(SURVEY_RECIPE["epochs"], OFTEN[0], OFTEN[1])
    where = "nowhere up to the largest share" if measured is None else f"at {measured:.2f}"
    return (
        f"For softmax regression and {variant_name(OFTEN)}, f = {explicit:.2f}: the law has DeltaGrad as slow as a"
        f" retrain at {break_even(explicit):.2f}; measured it is {where}."
    )


def _times(softmax: RowSet, net: RowSet) -> Table:
    deltagrad = softmax.where(method="deltagrad", scenario=IID, variant=variant_name(OFTEN))
    explicit = explicit_share(SURVEY_RECIPE["epochs"], OFTEN[0], OFTEN[1])
    network = net.where(method="deltagrad", scenario=IID, variant=variant_name(CAREFUL))
    network_explicit = explicit_share(STOPPED_RECIPE["epochs"], CAREFUL[0], CAREFUL[1])
    lines = []
    for ratio in deltagrad.distinct("ratio"):
        found = deltagrad.where(ratio=ratio)
        lines.append(
            [
                str(ratio),
                _number(found.mean(column("retrain_seconds")), 2),
                _number(found.mean(column("seconds")), 2),
                _with_spread(found, time_share, 3),
                f"{law(explicit, ratio):.3f}",
                {0.001: "0.297", 0.3: "0.728"}.get(ratio, "–"),
                _number(network.where(ratio=ratio).mean(time_share), 3),
                f"{law(network_explicit, ratio):.3f}",
            ]
        )
    columns = ["removed, iid", "retrain s", "DeltaGrad s", "share", "law", "survey"]
    return Table(columns=[*columns, f"network, {variant_name(CAREFUL)}", "law"], rows=lines)


def _federations(main: RowSet) -> Table:
    lines = []
    for method in ("sisa", "forest"):
        rows = main.where(method=method)
        for model in rows.distinct("model"):
            for variant in rows.where(model=model).distinct("variant"):
                for scenario in (IID, SKEWED):
                    chosen = rows.where(model=model, variant=variant, scenario=scenario)
                    lines += [_federation(chosen.where(ratio=ratio)) for ratio in chosen.distinct("ratio") if ratio]
    columns = [
        "method",
        "model",
        "scenario",
        "removed",
        "before",
        "accuracy",
        "erasure s",
        "retrain s",
        "share of time",
    ]
    return Table(columns=[*columns, "share of work", "closed form", "bytes equal"], rows=lines)


def _federation(rows: RowSet) -> list[str]:
    row = rows.all[0]
    exact = rows.values(lambda each: None if each.get("exact") is None else float(each["exact"]))
    return [
        f"{row['method']} {row['variant']}",
        row["model"],
        row["scenario"],
        f"{row['removed']:,}",
        _number(rows.mean(column("accuracy_before"))),
        _with_spread(rows, column("accuracy"), 4),
        _number(rows.mean(column("seconds")), 2),
        _number(rows.mean(column("retrain_seconds")), 2),
        _with_spread(rows, time_share, 3),
        _number(rows.mean(column("work_share")), 3),
        _number(rows.mean(column("expected_share")), 3),
        "–" if not exact else "yes" if all(exact) else "**no**",
    ]


def _distances(softmax: RowSet, net: RowSet) -> Table:
    shown = []
    for name, rows in (("softmax", softmax), ("network", net)):
        shown.append((f"{name}, before to retrain", rows.where(method="full-retrain")))
        deltagrad = rows.where(method="deltagrad")
        shown += [
            (f"{name}, DeltaGrad {variant}", deltagrad.where(variant=variant))
            for variant in deltagrad.distinct("variant")
        ]
    return _against_ratio(shown, column("distance"), None)


def _others(rows: RowSet, settings: Settings) -> Iterator[Section]:
    """Yield what is not in the tables before."""
    shown = {(SOFTMAX, recipe_name(SURVEY_RECIPE)), (NET, recipe_name(STOPPED_RECIPE))}
    lines = []
    seen: set[tuple[str, ...]] = set()
    for row in rows.all:
        is_shown = row["dataset"] == settings["main"] and (row["model"], row["recipe"]) in shown
        key = tuple(str(row.get(name)) for name in _PLACE)
        if row["recipe"] is None or is_shown or key in seen:
            continue
        seen.add(key)
        found = rows.where(**{name: row.get(name) for name in _PLACE})
        lines.append(
            [
                *(str(row.get(name) or "–") for name in _PLACE),
                _with_spread(found, column("accuracy"), 4),
                _number(found.mean(column("distance")), None),
                _number(found.mean(time_share), 3),
            ]
        )
    if lines:
        table = Table(columns=[*_PLACE, "accuracy", "distance", "share of time"], rows=lines)
        yield Section(title="Other data sets and recipes", text=_OTHERS, table=table)


def _failures(rows: RowSet) -> Iterator[str]:
    """Yield where DeltaGrad ends farther from the retrain than it began."""
    for row in rows.where(method="deltagrad").all:
        place = {name: row.get(name) for name in ("dataset", "model", "recipe", "scenario", "ratio", "round")}
        retrained = rows.where(**place, method="full-retrain").all
        if retrained and (row.get("distance") or 0) > (retrained[0].get("distance") or 0):
            yield (
                f"On {row['dataset']}, {row['model']}, {row['scenario']} {row['ratio']}, DeltaGrad is worse than doing"
                f" nothing: it ends at a distance of {_number(row['distance'], None)} from the retrain, where the"
                f" trained parameters were at {_number(retrained[0]['distance'], None)}, and its accuracy is"
                f" {_number(row['accuracy'])}, where the retrain's is {_number(retrained[0]['accuracy'])}."
            )


_OTHERS: Final = """\
A full retrain's distance is that from the trained parameters; DeltaGrad's is that from the retrain. Shares of time \
are above the law for the digits, where a step's own work counts beside few data points, and for batches, which both \
methods cut from all data points."""


_PLACE: Final = ("dataset", "model", "recipe", "scenario", "ratio", "method", "variant")


def _notes(rows: Sequence[Row]) -> Iterator[Section]:
    noted = [row for row in rows if row.get("note")]
    if noted:
        columns = ("dataset", "model", "method", "variant", "scenario", "ratio", "round", "note")
        lines = [["–" if row[name] is None else str(row[name]) for name in columns] for row in noted]
        yield Section(title="Notes", table=Table(columns=list(columns), rows=lines))


def _against_ratio(shown: Sequence[tuple[str, RowSet]], value: RowValue, digits: int | None) -> Table:
    """Return a table with a line for each scenario and removed share, and a column for each of those shown."""
    lines = []
    for scenario in (IID, SKEWED):
        ratios = sorted({ratio for _, rows in shown for ratio in rows.where(scenario=scenario).distinct("ratio")})
        for ratio in ratios:
            found = [rows.where(scenario=scenario, ratio=ratio) for _, rows in shown]
            lines.append([scenario, str(ratio), *(_with_spread(rows, value, digits) for rows in found)])
    return Table(columns=["scenario", "removed", *(name for name, _ in shown)], rows=lines)


def _with_spread(rows: RowSet, value: RowValue, digits: int | None) -> str:
    spread = rows.spread(value)
    mean = _number(rows.mean(value), digits)
    return f"{mean} ± {_number(spread, digits)}" if spread else mean


def _number(value: float | None, digits: int | None = 4) -> str:
    """Return a number with so many digits behind the point; None: with three in all."""
    if value is None:
        return "–"
    return f"{value:.3g}" if digits is None else f"{value:.{digits}f}"
