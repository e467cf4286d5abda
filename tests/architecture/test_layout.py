"""Sizes, folders and examples."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from tests.architecture.syntax import walk
from tests.documents import DOCUMENTS

ROOT = Path(__file__).parents[2]
LEARNERS = ("TorchLearner",)
"""Opened by the registry, and by the rehearsal, which tries a learner's models."""
MOST_MODULES = 16
"""In a folder, beside its subfolders: more cannot be taken in at a glance."""
ROOMS = ("storage", "shards", "coordinator", "cluster", "deploy")
FILES = sorted(file for room in (*ROOMS, "tests") for file in (ROOT / room).rglob("*.py"))
SOURCES = [file for file in FILES if not file.is_relative_to(ROOT / "tests")]
PACKAGES = [file for file in SOURCES if file.name == "__init__.py"]
WITH_EXAMPLES = [file for file in SOURCES if ">>> " in file.read_text(encoding="utf-8")]


def _name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def _room(file: Path) -> str:
    return file.relative_to(ROOT).parts[0]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the tests below ask about a file."""

    lines: int
    too_long: tuple[str, ...]
    """Functions of 100 lines and more."""
    undocumented: tuple[str, ...]
    """Fields of settings without a docstring beneath."""
    silent: tuple[int, ...]
    """Lines of ``pytest.raises`` without the error's text."""
    learners: tuple[str, ...]
    """Learners that are constructed."""


@pytest.fixture(scope="module")
def facts() -> dict[Path, Facts]:
    """All files, each parsed once."""
    return {file: _facts(file.read_text(encoding="utf-8")) for file in FILES}


def _facts(text: str) -> Facts:
    tree = ast.parse(text)
    functions, calls = list[ast.FunctionDef | ast.AsyncFunctionDef](), list[ast.Call]()
    for node in walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions.append(node)
        elif isinstance(node, ast.Call):
            calls.append(node)
    return Facts(
        lines=len(text.splitlines()),
        too_long=tuple(node.name for node in functions if (node.end_lineno or 0) - node.lineno >= 100),
        undocumented=tuple(_undocumented(tree)),
        silent=tuple(call.lineno for call in calls if _is_silent(call)),
        learners=tuple(call.func.id for call in calls if isinstance(call.func, ast.Name) and call.func.id in LEARNERS),
    )


def _undocumented(tree: ast.Module) -> Iterator[str]:
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.endswith("Settings")]
    for node in classes:
        for field, below in pairwise(node.body):
            if isinstance(field, ast.AnnAssign) and not _is_docstring(below):
                yield f"{node.name}.{ast.unparse(field.target)}"


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_silent(call: ast.Call) -> bool:
    is_raises = isinstance(call.func, ast.Attribute) and ast.unparse(call.func) == "pytest.raises"
    return is_raises and not {"match", "check"} & {str(word.arg) for word in call.keywords}


@pytest.mark.parametrize("file", WITH_EXAMPLES, ids=_name)
def test_documented_examples_are_true(file: Path) -> None:
    """Every example in a docstring gives the result that stands beneath it."""
    module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    outcome = doctest.testmod(module)
    assert outcome.failed == 0
    assert outcome.attempted > 0


def test_the_formulas_have_examples() -> None:
    """The pure modules that state the paper's formulas show them at work."""
    names = {_name(file) for file in WITH_EXAMPLES}
    assert names >= {"shards/schedule.py", "shards/cost.py", "shards/routing.py", "coordinator/decisions/forecast.py"}


@pytest.mark.parametrize("room", ROOMS)
def test_every_setting_is_documented(room: str, facts: dict[Path, Facts]) -> None:
    """Every field of a settings class has a docstring beneath it: unit, range, the default's reason."""
    undocumented = {_name(file): facts[file].undocumented for file in SOURCES if _room(file) == room}
    assert {name: fields for name, fields in undocumented.items() if fields} == {}


def test_every_test_folder_is_a_package() -> None:
    """Every folder of tests has an __init__.py: without it tests/storage would shadow the real storage."""
    folders = {file.parent for file in FILES if file.is_relative_to(ROOT / "tests")}
    assert [_name(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_no_folder_is_too_full() -> None:
    """No folder holds more modules than can be taken in at a glance; subfolders and their docstrings take the rest."""
    count = Counter(_name(file.parent) for file in FILES if file.name != "__init__.py")
    assert {folder: modules for folder, modules in count.items() if modules > MOST_MODULES} == {}


@pytest.mark.parametrize("room", ROOMS)
def test_every_folder_lists_what_is_in_it(room: str) -> None:
    """The docstring of a room, and of every folder in it, ends in a line for each module and folder, and no other."""
    packages = [package for package in PACKAGES if _room(package) == room]
    assert packages
    assert {_name(package): wrong for package in packages if (wrong := _listed(package) ^ _present(package))} == {}


def _listed(package: Path) -> set[str]:
    text = ast.get_docstring(ast.parse(package.read_text(encoding="utf-8"))) or ""
    return {line.split()[0] for line in text.split("\n\n")[-1].splitlines()}


def _present(package: Path) -> set[str]:
    modules = {file.stem for file in package.parent.glob("*.py")} - {"__init__"}
    return modules | {f"{inner.parent.name}/" for inner in package.parent.glob("*/__init__.py")}


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_documents_name_files_that_exist(document: Path) -> None:
    """Every path of a room's or a test's file that a document names leads to one."""
    text = document.read_text(encoding="utf-8")
    named = re.findall(rf"`((?:{'|'.join((*ROOMS, 'tests'))})/[\w./*-]*)`", text)
    assert [path for path in named if not [*ROOT.glob(path.rstrip("/"))]] == []


def test_learners_are_opened_by_the_registry(facts: dict[Path, Facts]) -> None:
    """One function constructs learners, so that a new one is added in one place."""
    found = [(_name(file), learner) for file in SOURCES for learner in facts[file].learners]
    files = ("shards/learners/registry.py", "shards/learners/torch/rehearsal_process.py")
    assert found == [(file, learner) for file in files for learner in LEARNERS]


def test_every_room_is_typed() -> None:
    """Every room ships the marker that tells type checkers to read it."""
    assert [room for room in ROOMS if not (ROOT / room / "py.typed").exists()] == []


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_sizes(room: str, facts: dict[Path, Facts]) -> None:
    """No file is over 600 lines and no function over 100."""
    of_room = {_name(file): facts[file] for file in FILES if _room(file) == room}
    assert of_room
    assert {name: each.lines for name, each in of_room.items() if each.lines > 600} == {}
    assert {name: each.too_long for name, each in of_room.items() if each.too_long} == {}


def test_raises_name_their_text(facts: dict[Path, Facts]) -> None:
    """Every pytest.raises asserts the error's text: messages nobody reads go wrong unseen."""
    silent = {_name(file): each.silent for file, each in facts.items() if _room(file) == "tests"}
    assert {name: lines for name, lines in silent.items() if lines} == {}
