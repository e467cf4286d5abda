"""Plots: the only module that uses matplotlib, which the extra ``lab`` installs.

Draws figures as experiments describe them.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cluster.experiments.experiment import Figure, Panel, Series
from storage.errors import Invalid

FORMATS: Final = ("png", "svg")
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3fbf", "#555555", "#a0522d")
"""The first six are distinct to colour-blind people, too (Okabe and Ito)."""
_MARKERS: Final = "osD^vP*Xh"
_PANEL_INCHES: Final = (5.0, 3.8)
_MOST_BESIDE: Final = 3
"""Panels in a row."""
_LEGEND_POINTS: Final = 280.0
"""Width for the legend of a panel."""
_LEGEND_LINE_POINTS: Final = 11.3
_LINE_POINTS: Final = 12.0
"""Height of a line of a title."""
_LONG_NAMES: Final = 30
"""From this many characters in all names of an axis on, the names are turned."""


def check_plotting() -> None:
    """Raise ``Invalid`` when matplotlib is not installed."""
    try:
        import matplotlib as mpl  # noqa: F401
    except ImportError as error:
        raise Invalid(
            "plots need matplotlib, which is not installed", "Install it with: pip install 'sisa-ray[lab]'."
        ) from error


def draw(figure: Figure, folder: Path) -> dict[str, str]:
    """Write the figure as PNG and as SVG; return the files' names by format.

    The same figure gives the same bytes with the same matplotlib, regardless of its user's own settings
    (``matplotlibrc``). Raises ``Invalid`` when it is not installed.
    """
    check_plotting()
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"svg.hashsalt": figure.name, "svg.fonttype": "none", "font.size": 9})
        canvas = _canvas(figure)
        for kind in FORMATS:
            files[kind] = f"{figure.name}.{kind}"
            stamp = {"Date": None} if kind == "svg" else {"Software": None}
            canvas.savefig(folder / files[kind], dpi=150, metadata=stamp)
    return files


def _canvas(figure: Figure) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    count = len(figure.panels)
    beside = 2 if count == 4 else min(count, _MOST_BESIDE)
    below = math.ceil(count / beside)
    width, height = _PANEL_INCHES
    height += max(_further_points(panel) for panel in figure.panels) / 72
    title = textwrap.fill(figure.title, 56 * beside)
    size = (width * beside, height * below + title.count("\n") * _LINE_POINTS / 72)
    canvas = Canvas(figsize=size, layout="constrained")
    FigureCanvasAgg(canvas)
    axes = list(canvas.subplots(below, beside, squeeze=False).flat)
    for panel, each in zip(figure.panels, axes, strict=False):
        _draw_panel(panel, each)
    for unused in axes[count:]:
        unused.set_axis_off()
    canvas.suptitle(title, fontsize=11)
    return canvas


def _draw_panel(panel: Panel, axes: Any) -> None:
    axes.set_title(_title(panel), fontsize=10, loc="left", pad=5 + _legend_lines(panel) * _LEGEND_LINE_POINTS)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    axes.set_axisbelow(True)
    axes.grid(visible=True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    shown = [_shown(series, panel) for series in panel.series]
    if not any(shown):
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", va="center")
        axes.set_xticks([])
        axes.set_yticks([])
        return
    if panel.log_x:
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log")
    names = _names_on_axis(panel)
    for number, (series, kept) in enumerate(zip(panel.series, shown, strict=True)):
        if panel.kind == "bars":
            _draw_bars(panel, number, kept, names, axes)
        else:
            _draw_line(series, number, panel, kept, names, axes)
    if names:
        is_long = _are_long(names)
        axes.set_xticks(range(len(names)), names, rotation=30 if is_long else 0, ha="right" if is_long else "center")
        axes.set_xlim(-0.6, len(names) - 0.4)
    if len(panel.series) > 1:
        axes.legend(
            fontsize=8,
            frameon=False,
            ncols=_legend_columns(panel),
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            borderaxespad=0.2,
            borderpad=0.1,
            labelspacing=0.3,
            columnspacing=1.2,
        )


def _title(panel: Panel) -> str:
    return textwrap.fill(panel.title, 60)


def _further_points(panel: Panel) -> float:
    """Return the height that the panel needs beyond its axes and one line of title."""
    names = _names_on_axis(panel)
    turned = 2.5 * max(map(len, names)) if _are_long(names) else 0.0
    return _legend_lines(panel) * _LEGEND_LINE_POINTS + _title(panel).count("\n") * _LINE_POINTS + turned


def _are_long(names: Sequence[str]) -> bool:
    """Return whether the names of an axis are turned, since they would meet."""
    return sum(map(len, names)) > _LONG_NAMES


def _legend_lines(panel: Panel) -> int:
    """Return how many lines the legend takes: it is above the axes, where it hides nothing."""
    return math.ceil(len(panel.series) / _legend_columns(panel)) if len(panel.series) > 1 else 0


def _legend_columns(panel: Panel) -> int:
    longest = max(len(_label(series, panel)) for series in panel.series)
    return max(1, min(4, int(_LEGEND_POINTS // (4.6 * longest + 36))))


def _label(series: Series, panel: Panel) -> str:
    """Return the name in the legend, which says so where a logarithmic axis cannot show a value."""
    is_hidden = panel.log_y and any(value is not None and value <= 0 for value in series.y)
    return f"{series.name} (0 is not shown)" if is_hidden else series.name


def _shown(series: Series, panel: Panel) -> list[int]:
    """Return the positions of the values that the axes can show."""
    return [
        position
        for position, value in enumerate(series.y)
        if value is not None and math.isfinite(value) and not (panel.log_y and value <= 0)
    ]


def _names_on_axis(panel: Panel) -> list[str]:
    """Return the texts on the horizontal axis, in order of their first series; empty: it has numbers.

    Bars are drawn side by side, however close their numbers are.
    """
    named = [name for series in panel.series for name in series.x if panel.kind == "bars" or isinstance(name, str)]
    return list(dict.fromkeys(map(_name, named)))


def _name(x: float | str) -> str:
    return x if isinstance(x, str) else f"{x:g}"


def _places(series: Series, kept: Sequence[int], names: Sequence[str]) -> list[Any]:
    """Return where the values are on the horizontal axis."""
    return [names.index(_name(series.x[position])) if names else series.x[position] for position in kept]


def _spread(series: Series, kept: Sequence[int]) -> list[float] | None:
    return None if series.spread is None else [series.spread[position] for position in kept]


def _draw_line(series: Series, number: int, panel: Panel, kept: Sequence[int], names: list[str], axes: Any) -> None:
    is_dashed = series.is_reference and len(series.x) > 1
    style = "--" if is_dashed else "none" if panel.kind == "points" else "-"
    axes.errorbar(
        _places(series, kept, names),
        [series.y[position] for position in kept],
        yerr=_spread(series, kept),
        label=_label(series, panel),
        color=_COLOURS[number % len(_COLOURS)],
        marker=None if is_dashed else _MARKERS[(number + number // len(_COLOURS)) % len(_MARKERS)],
        linestyle=style,
        markersize=4,
        capsize=2,
        linewidth=1.4,
    )


def _draw_bars(panel: Panel, number: int, kept: Sequence[int], names: list[str], axes: Any) -> None:
    series, colour = panel.series[number], _COLOURS[number % len(_COLOURS)]
    width = 0.8 / len(panel.series)
    axes.bar(
        [place - 0.4 + width * (number + 0.5) for place in _places(series, kept, names)],
        [series.y[position] for position in kept],
        width,
        yerr=_spread(series, kept),
        label=_label(series, panel),
        facecolor="none" if series.is_reference else colour,
        edgecolor=colour,
        linestyle="--" if series.is_reference else "-",
        linewidth=1.0 if series.is_reference else 0.0,
        error_kw={"elinewidth": 0.8, "capsize": min(2.0, 12 * width), "ecolor": "#333333"},
    )
