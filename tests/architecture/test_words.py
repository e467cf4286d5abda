"""One word, one meaning: names of classes and functions that several modules define."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.architecture.syntax import walk

ROOT: Final = Path(__file__).parents[2]
ROOMS: Final = ("storage", "shards", "coordinator", "cluster", "deploy")
COMMANDS: Final = ROOT / "deploy/commands"
"""Commands and their options have the names that people type, so these modules are passed over."""
MODULES: Final = sorted(
    file for room in ROOMS for file in (ROOT / room).rglob("*.py") if not file.is_relative_to(COMMANDS)
)

SAME_MEANING: Final = {
    "main": "the entry point of a program",
    "cells": "Experiment.cells of an experiment",
    "report": "Experiment.report of an experiment",
    "rows_of_cell": "Experiment.run of an experiment",
    "settings": "Experiment.settings of an experiment",
}
"""Public functions that several modules define, and what all of them are."""


NAMES_COMMANDS: Final = {
    "storage/encryption/cipher.py",
    "storage/encryption/keyring.py",
    "storage/encryption/store.py",
    "storage/s3/requests.py",
}
"""What is damaged there can be rebuilt or restored by one command, and nothing above these modules changes the error on
its way to people."""


def _public(names: Iterator[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def _classes(tree: ast.Module) -> Iterator[str]:
    """Yield the names of classes, wherever they are, and of the types that a module gives a name to."""
    for node in walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id[0].isupper() and not target.id.isupper():
            yield target.id


def _functions(tree: ast.Module) -> Iterator[str]:
    """Yield the names of a module's functions."""
    return (node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _homes(names_of: Callable[[ast.Module], Iterator[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for file in MODULES:
        for name in _public(names_of(ast.parse(file.read_text(encoding="utf-8")))):
            found[name].append(str(file.relative_to(ROOT)))
    return {name: files for name, files in found.items() if len(files) > 1}


def test_a_class_has_one_home() -> None:
    """No name of a class, or of a type, is defined in two modules."""
    assert _homes(_classes) == {}


def test_a_function_has_one_meaning() -> None:
    """No public function's name is defined in two modules, but for those that mean the same everywhere."""
    homes = _homes(_functions)
    assert homes.keys() == SAME_MEANING.keys(), homes


def test_storage_knows_few_commands() -> None:
    """No text of ``storage`` names a command, but for remedies that reach people as they are."""
    texts = {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in (ROOT / "storage").rglob("*.py")}
    assert {name for name, text in texts.items() if re.search(r"\bsisa\W* \W*[a-z]", text)} == NAMES_COMMANDS
