"""The README says what the dated pages of benchmarks say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy_files.figures.headlines import PAGES, README, headlines, with_table

_HEAD = "| what | measured | aim |\n| --- | --- | --- |\n"


def test_the_readme_has_the_figures_of_the_latest_pages() -> None:
    """Run ``python -m tests.deploy_files.figures.headlines`` after a page has changed."""
    text = README.read_text(encoding="utf-8")
    assert with_table(text, headlines(PAGES)) == text


def test_the_latest_page_of_a_topic_counts(tmp_path: Path) -> None:
    """Pages of other names do not count, nor do tables without the heading."""
    for name, figure in (("ingest-2026-10.md", 5), ("ingest-2026-11.md", 4), ("training-2026-09.md", 3)):
        (tmp_path / name).write_text(
            f"# A\n\n## In short\n\n{_HEAD}| x | {figure} | 2 |\n| z | 1 | 1 |\n\n{_HEAD}| y | 9 | 9 |\n"
        )
    (tmp_path / "notes.md").write_text("# B\n")
    assert headlines(tmp_path) == (
        f"{_HEAD}| [x](docs/benchmarks/ingest-2026-11.md) | 4 | 2 |\n"
        "| [x](docs/benchmarks/training-2026-09.md) | 3 | 2 |\n"
    )
    (tmp_path / "serving-2026-11.md").write_text("# C\n")
    with pytest.raises(ValueError, match=r'serving-2026-11.md has no table under "In short"'):
        headlines(tmp_path)


def test_a_readme_without_the_table_is_refused() -> None:
    """Nothing is written then."""
    with pytest.raises(ValueError, match="the README has 0 tables of figures"):
        with_table("# sisa-ray\n", _HEAD)
