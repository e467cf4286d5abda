"""The figures: of the main data set, and of the recipe that fits the survey's times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from cluster.experiments.experiment import Figure, Panel, Row, Series, Settings
from cluster.experiments.section_vi.descents import recipe_name, variant_name
from cluster.experiments.section_vi.grid import CAREFUL, FOREST, NET, OFTEN, SOFTMAX, STOPPED_RECIPE, SURVEY_RECIPE
from cluster.experiments.section_vi.removal import IID, SCENARIOS, SKEWED
from cluster.experiments.section_vi.summary import (
    RowSet,
    RowValue,
    column,
    explicit_share,
    law,
    of_class,
    time_share,
)
from shards.cost import batch_fraction

_REMOVED: Final = "removed share of the data points"
_SURVEY_IID: Final = ((0.001, 0.8735), (0.3, 0.8725))
_SURVEY_SKEWED: Final = ((0.3, 0.7921),)
_SURVEY_TIMES: Final = ((0.001, 12.53 / 42.19), (0.3, 21.22 / 29.15))


def figures_of(settings: Settings, rows: list[Row]) -> list[Figure]:
    """Return the figures."""
    main = RowSet(rows).where(dataset=settings["main"])
    drawn, lost = Drawn(main), settings["skewed_class"]
    return [
        Figure(
            name="accuracy",
            title=f"Accuracy after a deletion ({settings['main']})",
            panels=[drawn.accuracy(IID, _SURVEY_IID), drawn.accuracy(SKEWED, _SURVEY_SKEWED)],
        ),
        Figure(
            name="classes",
            title=f"Accuracy by class without 0.3 of the data points; non-iid: 30 % of them of class {lost}",
            panels=[drawn.classes(IID), drawn.classes(SKEWED)],
        ),
        Figure(
            name="time",
            title=f"Processor time of a deletion as a share of the full retrain's ({settings['main']}, iid)",
            panels=[drawn.times(), drawn.costs(settings)],
        ),
        Figure(
            name="distance",
            title="Distance between parameters; SISA and forests have the bytes of a retrain: 0, and not drawn",
            panels=[drawn.distances(SOFTMAX), drawn.distances(NET)],
        ),
    ]


class Drawn:
    """Panels of one data set's rows."""

    def __init__(self, rows: RowSet) -> None:
        self._sisa = rows.where(method="sisa")
        self._forest = rows.where(method="forest")
        self._softmax = rows.where(model=SOFTMAX, recipe=recipe_name(SURVEY_RECIPE))
        self._net = rows.where(model=NET, recipe=recipe_name(STOPPED_RECIPE))

    def accuracy(self, scenario: str, survey: Sequence[tuple[float, float]]) -> Panel:
        """Return accuracy against the removed share."""
        often, careful = variant_name(OFTEN), variant_name(CAREFUL)
        shown = [
            ("softmax, retrain", self._softmax.where(method="full-retrain")),
            (f"softmax, DeltaGrad {often}", self._softmax.where(method="deltagrad", variant=often)),
            ("network, retrain", self._net.where(method="full-retrain")),
            (f"network, DeltaGrad {careful}", self._net.where(method="deltagrad", variant=careful)),
            *((f"{model}, SISA {variant}", rows) for model, variant, rows in self._federations(self._sisa)),
            *((f"forest, {variant}", rows) for _, variant, rows in self._federations(self._forest)),
        ]
        series = [
            _line(name, rows.where(scenario=scenario), column("accuracy"))
            for name, rows in shown
            if all(len(rows.where(scenario=each)) for each in SCENARIOS)  # else a colour would have two meanings
        ]
        return Panel(
            title=scenario,
            x=_REMOVED,
            y="accuracy on the test data",
            series=[*(each for each in series if each.x), _reference("survey: DeltaGrad", survey)],
            log_x=True,
        )

    def classes(self, scenario: str) -> Panel:
        """Return the accuracy of each class after the largest deletion of the survey."""
        shown = [
            ("softmax, before", self._softmax.where(method="trained")),
            ("softmax, retrain", self._softmax.where(method="full-retrain")),
            ("softmax, DeltaGrad", self._softmax.where(method="deltagrad", variant=variant_name(OFTEN))),
            *((f"{model}, SISA {variant}", rows) for model, variant, rows in self._federations(self._sisa)),
            *((f"forest, {variant}", rows) for _, variant, rows in self._federations(self._forest)),
        ]
        series = []
        for name, rows in shown:
            if rows.where(scenario=IID, ratio=0.3).all and rows.where(scenario=SKEWED, ratio=0.3).all:
                found = rows.where(scenario=scenario, ratio=0.3)
            elif name.endswith("before"):
                found = rows
            else:
                continue  # a colour would have two meanings in the figure
            names = sorted({each for row in found.all for each in row["per_class"] or {}})
            series.append(Series(name=name, x=names, y=[found.mean(of_class(each)) for each in names]))
        return Panel(title=scenario, x="class", y="accuracy on its test data", series=series, kind="bars")

    def times(self) -> Panel:
        """Return DeltaGrad's time as a share of the retrain's, with its law and the survey's figures."""
        ratios = self._softmax.where(method="deltagrad", scenario=IID).distinct("ratio")
        series = []
        for model, rows, recipe, variant in (
            ("softmax", self._softmax, SURVEY_RECIPE, OFTEN),
            ("network", self._net, STOPPED_RECIPE, CAREFUL),
        ):
            name = variant_name(variant)
            explicit = explicit_share(recipe["epochs"], variant[0], variant[1])
            found = rows.where(method="deltagrad", scenario=IID, variant=name)
            series.append(_line(f"{model}, {name}", found, time_share))
            series.append(_reference(f"law, {name}", [(ratio, law(explicit, ratio)) for ratio in ratios]))
        series.append(_reference("survey", _SURVEY_TIMES))
        series.append(_reference("a full retrain", [(ratio, 1.0) for ratio in ratios]))
        return Panel(title="DeltaGrad", x=_REMOVED, y="share of the retrain's time", series=_drawn(series))

    def costs(self, settings: Settings) -> Panel:
        """Return SISA's and the forest's time beside DeltaGrad's, and SISA's closed form."""
        often = variant_name(OFTEN)
        found = self._softmax.where(method="deltagrad", scenario=IID, variant=often)
        series = [_line(f"DeltaGrad {often}", found, time_share)]
        for model, variant, rows in self._federations(self._sisa):
            series.append(_line(f"SISA {variant}, {model}", rows.where(scenario=IID), time_share))
        for _, variant, rows in self._federations(self._forest):
            series.append(_line(f"forest, {variant}", rows.where(scenario=IID), time_share))
        sizes = [row["removed"] / row["ratio"] for row in self._sisa.all if row.get("removed") and row["ratio"]]
        for study in settings["federations"]:
            partition = study["tables"]["partition"]
            shards, slices = partition["shards"], partition["slices"]
            name = f"SISA S={shards} R={slices}, closed form"
            if shards > 1 and sizes and all(name != each.name for each in series):
                counts = [count for count in _COUNTS if count <= sizes[0] / 2]
                points = [(count / sizes[0], batch_fraction(shards, slices, count)) for count in counts]
                series.append(_reference(name, points))
        return Panel(
            title="all methods", x=_REMOVED, y="share of the retrain's time", series=_drawn(series), log_x=True
        )

    def distances(self, model: str) -> Panel:
        """Return how far a retrain is from the trained parameters, and DeltaGrad's from the retrain."""
        rows = self._softmax if model == SOFTMAX else self._net
        series = []
        for scenario in (IID, SKEWED):
            found = rows.where(scenario=scenario)
            retrained = found.where(method="full-retrain")
            series.append(_line(f"before to retrain, {scenario}", retrained, column("distance")))
            for variant in (OFTEN, CAREFUL):
                chosen = found.where(method="deltagrad", variant=variant_name(variant))
                name = f"DeltaGrad {variant_name(variant)} to retrain, {scenario}"
                series.append(_line(name, chosen, column("distance")))
        return Panel(title=model, x=_REMOVED, y="distance", series=_drawn(series), log_x=True, log_y=True)

    def _federations(self, rows: RowSet) -> Iterator[tuple[str, str, RowSet]]:
        """Yield the federations' models, variants and rows."""
        for model in (SOFTMAX, NET, FOREST):
            for variant in rows.where(model=model).distinct("variant"):
                yield _MODELS[model], variant, rows.where(model=model, variant=variant)


_MODELS: Final = {SOFTMAX: "softmax", NET: "network", FOREST: "forest"}
_COUNTS: Final = (1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 500, 2000, 10_000, 30_000)


def _line(name: str, rows: RowSet, value: RowValue) -> Series:
    """Return the means by removed share, with standard deviations over rounds."""
    ratios = [ratio for ratio in rows.distinct("ratio") if ratio > 0 and rows.where(ratio=ratio).values(value)]
    chosen = [rows.where(ratio=ratio) for ratio in ratios]
    return Series(
        name=name, x=ratios, y=[each.mean(value) for each in chosen], spread=[each.spread(value) for each in chosen]
    )


def _reference(name: str, points: Sequence[tuple[float, float]]) -> Series:
    return Series(name=name, x=[x for x, _ in points], y=[y for _, y in points], is_reference=True)


def _drawn(series: Sequence[Series]) -> list[Series]:
    """Return the series that have a value."""
    return [each for each in series if each.x]
