"""Plots: the one door to matplotlib, which the extra ``lab`` installs. Draws figures as experiments describe them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from cluster.experiments.experiment import Figure, Panel, Series
from storage.errors import Invalid

FORMATS: Final = ("png", "svg")
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3fbf", "#555555", "#a0522d")
"""The first six are distinct to colour-blind people, too (Okabe and Ito)."""
_MARKERS: Final = "osD^vP*Xh"
_PANEL_INCHES: Final = (5.0, 3.8)
_LONG_NAMES: Final = 30
"""Characters of all names on an axis from which on they are turned."""


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

    The same figure gives the same bytes with the same matplotlib. Raises ``Invalid`` when it is not installed.
    """
    check_plotting()
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    folder.mkdir(parents=True, exist_ok=True)
    width, height = _PANEL_INCHES
    files = {}
    with mpl.rc_context({"svg.hashsalt": figure.name, "svg.fonttype": "none", "font.size": 9}):
        canvas = Canvas(figsize=(width * len(figure.panels), height), layout="constrained")
        FigureCanvasAgg(canvas)
        axes = canvas.subplots(1, len(figure.panels), squeeze=False)[0]
        for panel, each in zip(figure.panels, axes, strict=True):
            _draw_panel(panel, each)
        canvas.suptitle(figure.title, fontsize=11)
        for kind in FORMATS:
            files[kind] = f"{figure.name}.{kind}"
            stamp = {"Date": None} if kind == "svg" else {"Software": None}
            canvas.savefig(folder / files[kind], dpi=150, metadata=stamp)
    return files


def _draw_panel(panel: Panel, axes: Any) -> None:
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel(panel.x)
    axes.set_ylabel(panel.y)
    if panel.log_x:
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log")
    for number, series in enumerate(panel.series):
        if panel.kind == "bars":
            _draw_bars(series, number, len(panel.series), axes)
        else:
            _draw_line(series, number, panel, axes)
    names = next((series.x for series in panel.series if series.x and isinstance(series.x[0], str)), None)
    if names is not None:
        is_long = sum(len(str(name)) for name in names) > _LONG_NAMES
        axes.set_xticks(range(len(names)), names, rotation=30 if is_long else 0, ha="right" if is_long else "center")
    axes.grid(visible=True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(panel.series) > 1:
        axes.legend(fontsize=8, frameon=False)


def _draw_line(series: Series, number: int, panel: Panel, axes: Any) -> None:
    x = list(range(len(series.x))) if series.x and isinstance(series.x[0], str) else list(series.x)
    kept = [position for position, value in enumerate(series.y) if value is not None]
    style = "" if panel.kind == "points" else "--" if series.is_reference else "-"
    axes.errorbar(
        [x[position] for position in kept],
        [series.y[position] for position in kept],
        yerr=None if series.spread is None else [series.spread[position] for position in kept],
        label=series.name,
        color=_COLOURS[number % len(_COLOURS)],
        marker=None if series.is_reference and panel.kind == "lines" else _MARKERS[number % len(_MARKERS)],
        linestyle=style or "none",
        markersize=4,
        capsize=2,
        linewidth=1.4,
    )


def _draw_bars(series: Series, number: int, among: int, axes: Any) -> None:
    width = 0.8 / among
    axes.bar(
        [position - 0.4 + width * (number + 0.5) for position in range(len(series.x))],
        [0.0 if value is None else value for value in series.y],
        width,
        yerr=series.spread,
        label=series.name,
        color=_COLOURS[number % len(_COLOURS)],
        capsize=2,
    )
