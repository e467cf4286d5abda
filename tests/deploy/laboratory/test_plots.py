"""Plots: nothing lies over data or is cut off, what cannot be drawn is said, and texts in SVG are texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from cluster.experiments.experiment import Figure, Panel, Series
from deploy.plots import _canvas, draw

CLASSES = [str(number) for number in range(10)]
SHARES = [0.001, 0.01, 0.1, 0.3]
TITLE = "Accuracy, distance and time after deletions of every size, beside SISA and a full retrain"


def _lines(count: int) -> list[Series]:
    return [
        Series(name=f"method number {number}", x=SHARES, y=[0.9 - number / 100] * 4, spread=[0.01] * 4)
        for number in range(count)
    ]


def _bars(count: int) -> list[Series]:
    return [Series(name=f"method number {number}", x=CLASSES, y=[0.9] * 10) for number in range(count)]


def _drawn(*panels: Panel) -> Any:
    canvas = _canvas(Figure(name="toy", title=TITLE, panels=panels))
    canvas.draw_without_rendering()
    return canvas


def _panel(series: Sequence[Series], **more: Any) -> Panel:
    return Panel(title="How much of what was learned is left", x="share", y="accuracy", series=series, **more)


@pytest.mark.parametrize(("count", "beside"), [(2, 1), (9, 3), (5, 5)])
def test_nothing_is_hidden_or_cut_off(count: int, beside: int) -> None:
    """The legend and the titles are above the axes, and inside the picture, however many there are."""
    panels = [_panel(_lines(count)), _panel(_bars(count), kind="bars"), _panel(_lines(count), log_x=True, log_y=True)]
    canvas = _drawn(*(panels * 2)[:beside])
    page = canvas.bbox
    (title,) = [canvas._suptitle.get_window_extent()]
    assert page.x0 <= title.x0 < title.x1 <= page.x1
    for axes in canvas.axes[:beside]:
        data, legend, heading = (each.get_window_extent() for each in (axes.patch, axes.get_legend(), axes._left_title))
        assert legend.y0 >= data.y1 - 1
        assert heading.y0 >= legend.y1 - 1
        assert heading.y1 <= title.y0
        assert max(legend.x1, heading.x1) <= page.x1
        assert data.height > 150


def test_names_of_methods_leave_room_for_the_bars() -> None:
    """Long ones are turned, and the picture is higher."""
    names = ["SISA (10 shards)", "gradient ascent", "variational Bayes (EUBO)", "certified removal", "full retrain"]
    (axes,) = _drawn(_panel([Series(name="AUC", x=names, y=[0.5] * 5)], kind="bars")).axes
    assert [label.get_rotation() for label in axes.get_xticklabels()] == [30] * 5
    assert axes.patch.get_window_extent().height > 200


def test_a_value_that_is_missing_is_not_drawn_as_zero() -> None:
    """Neither as a bar nor as a point, also for a NaN."""
    series = Series(name="accuracy", x=["a", "b", "c", "d"], y=[0.5, None, float("nan"), 0.0], spread=[0.1] * 4)
    (axes,) = _drawn(_panel([series], kind="bars")).axes
    assert [round(bar.get_x() + bar.get_width() / 2) for bar in axes.patches] == [0, 3]
    (axes,) = _drawn(_panel([series])).axes
    assert list(axes.lines[0].get_xdata()) == [0, 3]


def test_names_on_an_axis_are_those_of_all_series() -> None:
    """Each value is above its own name."""
    series = [Series(name="left", x=["a", "b"], y=[1, 2]), Series(name="right", x=["b", "c"], y=[3, 4])]
    (axes,) = _drawn(_panel(series)).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert list(axes.lines[1].get_xdata()) == [1, 2]


def test_bars_of_numbers_stand_beside_each_other() -> None:
    """However close the numbers are."""
    (axes,) = _drawn(_panel([Series(name="seconds", x=SHARES, y=[1, 2, 3, 4])], kind="bars")).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.001", "0.01", "0.1", "0.3"]
    assert [round(bar.get_x() + bar.get_width() / 2) for bar in axes.patches] == [0, 1, 2, 3]


def test_a_zero_on_a_logarithmic_axis_is_said() -> None:
    """A distance of exactly zero is the best of all: it may not vanish without a word."""
    series = [Series(name="T0 = 1", x=SHARES, y=[0.0] * 4), Series(name="T0 = 5", x=SHARES, y=[0.1] * 4)]
    (axes,) = _drawn(_panel(series, log_y=True)).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["T0 = 1 (0 is not shown)", "T0 = 5"]


@pytest.mark.parametrize("is_log", [False, True])
def test_axes_without_values_say_so(is_log: bool) -> None:
    """Every method failed, or none was measured with these settings."""
    (axes,) = _drawn(_panel([Series(name="accuracy", x=SHARES, y=[None] * 4)], log_y=is_log)).axes
    assert [text.get_text() for text in axes.texts] == ["no values"]


def test_eleven_series_look_different() -> None:
    """Where colours come again, the markers are others."""
    (axes,) = _drawn(_panel([Series(name=str(n), x=[1, 2], y=[n, n]) for n in range(11)])).axes
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 11


@pytest.mark.parametrize("kind", ["lines", "points"])
def test_a_reference_is_dashed(kind: Any) -> None:
    """The dashed line has no markers; measured points beside it stay points."""
    measured = Series(name="ours", x=[1, 2, 3], y=[1, 2, 3])
    series = [measured, Series(name="law", x=[1, 3], y=[1, 3], is_reference=True)]
    (axes,) = _drawn(_panel(series, kind=kind)).axes
    assert [line.get_linestyle() for line in axes.lines] == ["-" if kind == "lines" else "None", "--"]
    assert [line.get_marker() for line in axes.lines] == ["o", "None"]


def test_a_reference_among_bars_is_an_empty_bar() -> None:
    """The bar has a dashed edge."""
    series = [*_bars(1), Series(name="published", x=CLASSES, y=[0.9] * 10, is_reference=True)]
    (axes,) = _drawn(_panel(series, kind="bars")).axes
    assert {bar.get_facecolor()[3] for bar in axes.patches[:10]} == {1.0}
    assert {(bar.get_facecolor()[3], bar.get_linestyle()) for bar in axes.patches[10:]} == {(0.0, "--")}


def test_texts_in_svg_are_texts(tmp_path: Path) -> None:
    """Texts can therefore be searched, read aloud and changed."""
    files = draw(Figure(name="toy", title="Doubles", panels=[_panel(_lines(2))]), tmp_path)
    text = (tmp_path / files["svg"]).read_text()
    assert all(f">{word}<" in text for word in ("Doubles", "accuracy", "method number 1"))


def test_settings_of_the_user_change_nothing(tmp_path: Path) -> None:
    """A dark style, another font, pictures that are cut: the bytes stay."""
    figure = Figure(name="toy", title=TITLE, panels=[_panel(_lines(2))])
    draw(figure, tmp_path / "left")
    own: Any = {"axes.facecolor": "black", "font.family": "monospace", "savefig.bbox": "tight", "lines.linewidth": 7}
    with mpl.rc_context(own):
        draw(figure, tmp_path / "right")
        assert mpl.rcParams["axes.facecolor"] == "black"
    for name in ("toy.png", "toy.svg"):
        assert (tmp_path / "left" / name).read_bytes() == (tmp_path / "right" / name).read_bytes()
