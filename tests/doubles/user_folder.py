"""A user's folder with a small data set and ``sisa.toml``, and functions that run the command in it."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from cluster.writer.place import read_identity, take_place
from deploy.commands.cli import main
from storage.encryption.store import SealedStore
from storage.objects import ObjectKey
from storage.stores.local import LocalStore

FEATURES = 16
PEOPLE = 30
MARKED = "marked-person"
"""The id of the data point whose features are ``MARKER``."""
MARKER = b"ERASE-ME-PLEASE!"

Columns = dict[str, list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandResult:
    """The result of a command."""

    code: int
    out: str
    err: str

    @property
    def envelope(self) -> dict[str, Any]:
        """The JSON object on stdout, after checking that it is an envelope of the contract."""
        found: dict[str, Any] = json.loads(self.out)
        assert found["schema_version"] == 1
        assert found["status"] == ("error" if self.code else "ok")
        assert ("error" in found) == bool(self.code)
        assert found.keys() <= {"schema_version", "status", "data", "error"}
        assert self.code or "data" in found
        if self.code:
            assert found["error"].keys() == {"kind", "message", "remedy"}
        return found

    @property
    def data(self) -> dict[str, Any]:
        """The envelope's data."""
        found: dict[str, Any] = self.envelope["data"]
        return found

    @property
    def error(self) -> dict[str, str]:
        """The envelope's error."""
        found: dict[str, str] = self.envelope["error"]
        return found

    @property
    def digests(self) -> list[str]:
        """The constituents' digests, if the data is a status."""
        return [each["digest"] for each in self.data["constituents"]]


def small_points(people: int = PEOPLE, each: int = 4) -> Columns:
    """Return the columns of a small data set: ``people`` persons with ``each`` data points, one of them marked."""
    columns: Columns = {"id": [], "user_id": [], "label": []} | {f"x{n:02d}": [] for n in range(FEATURES)}
    for number in range(people * each):
        person = number % people
        marked = person == people - 1
        values = MARKER if marked else [(number * 37 + feature * 101 + feature * number) % 251 for feature in range(16)]
        columns["id"].append(f"secret-id-{number:04d}")
        columns["user_id"].append(MARKED if marked else f"secret-person-{person:03d}")
        columns["label"].append("abc"[values[0] // 84])
        for feature, value in enumerate(values):
            columns[f"x{feature:02d}"].append(value)
    return columns


def ids_of(columns: Columns, subject: str) -> list[str]:
    """Return the ids of a subject's data points."""
    return [id_ for id_, who in zip(columns["id"], columns["user_id"], strict=True) if who == subject]


def without(columns: Columns, *, subjects: Iterable[str] = (), ids: Iterable[str] = ()) -> Columns:
    """Return the columns without the data points of these subjects and ids."""
    gone, single = set(subjects), set(ids)
    pairs = zip(columns["id"], columns["user_id"], strict=True)
    keep = [id_ not in single and who not in gone for id_, who in pairs]
    return {name: [value for value, kept in zip(values, keep, strict=True) if kept] for name, values in columns.items()}


def as_table(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Return the columns as a table; features that are bytes are stored as such."""
    arrays = {}
    for name, values in columns.items():
        small = name.startswith("x") and all(type(value) is int and 0 <= value < 256 for value in values)
        arrays[name] = pa.array(values, pa.uint8() if small else None)
    return pa.table(arrays)


SETTINGS: Mapping[str, object] = {
    "name": "small",
    "store": "./federation",
    "data.train": "train.parquet",
    "data.id": "id",
    "data.subject": "user_id",
    "data.label": "label",
    "data.features": ["x*"],
    "data.classes": ["a", "b", "c"],
    "data.scale": 255.0,
    "model.factory": "shards.models:mlp",
    "model.arguments": {"hidden": [6]},
    "training.epochs": 4,
    "training.batch_size": 8,
    "training.learning_rate": 0.1,
    "training.seed": 7,
    "partition.shards": 3,
    "partition.slices": 2,
    "partition.key": bytes(range(16)).hex(),
}


@dataclass(frozen=True, slots=True)
class UserFolder:
    """A user's folder."""

    folder: Path

    @property
    def store(self) -> Path:
        """The federation's store."""
        return self.folder / "federation"

    @property
    def config(self) -> Path:
        """The specification."""
        return self.folder / "sisa.toml"

    def fill(self, columns: Columns | None = None, **changes: object) -> UserFolder:
        """Write ``train.parquet`` and the specification."""
        self.write("train.parquet", columns or small_points())
        self.specify(**changes)
        return self

    def specify(self, **changes: object) -> Path:
        """Write the specification with settings changed (``data__train`` for ``[data] train``; None: left out)."""
        settings = dict(SETTINGS) | {name.replace("__", "."): value for name, value in changes.items()}
        tables: dict[str, list[str]] = {}
        for name, value in settings.items():
            table, _, setting = name.rpartition(".")
            if value is not None:
                tables.setdefault(table, []).append(f"{setting} = {_toml(value)}")
        parts = ("\n".join([f"[{table}]", *lines] if table else lines) for table, lines in tables.items())
        self.config.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
        return self.config

    def write(self, name: str, columns: Mapping[str, Sequence[Any]]) -> Path:
        """Write a data file in the format of its ending."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table = as_table(columns)
        if path.suffix == ".csv":
            pacsv.write_csv(table, path)
        elif path.suffix == ".arrow":
            with pyarrow.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table)
        else:
            pq.write_table(table, path)
        return path

    def run(self, *words: str) -> CommandResult:
        """Run the command in this process, with this folder's specification."""
        command, *rest = words
        return run(command, "--config", str(self.config), *rest)

    def json(self, *words: str) -> CommandResult:
        """Run the command with ``--json``."""
        return self.run(*words, "--json")

    @property
    def objects(self) -> SealedStore:
        """The store, decrypted."""
        return SealedStore(LocalStore(str(self.store)))

    def slice_files(self) -> dict[ObjectKey, bytes]:
        """Return the slice files, decrypted."""
        keys = (info.key for info in self.objects.list("shards/") if info.key.endswith(".parquet"))
        return {key: self.objects.get(key).payload for key in keys}

    def raw(self) -> dict[str, bytes]:
        """Return every file of the store, raw."""
        paths = (path for path in self.store.rglob("*") if path.is_file())
        return {path.relative_to(self.store).as_posix(): path.read_bytes() for path in paths}

    def kept(self) -> dict[str, bytes]:
        """Return what a refused command must not change: the user's files and the federation's objects.

        Locks, numbered manifests and tokens are left out, because a writer claims a token before it does anything
        else; keyrings too, which are rewritten when a command deletes what it had begun to write.
        """
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        names = {path.relative_to(self.folder).as_posix(): path for path in paths}
        passed_over = (".locks", "control", "manifest", "keyrings", "__pycache__")
        return {name: path.read_bytes() for name, path in names.items() if not set(name.split("/")) & set(passed_over)}

    def refused(self, *words: str, code: int = 2) -> CommandResult:
        """Run the command and check that it ends with ``code``, names a remedy and loses nothing; return its result."""
        kept, before = self.kept(), run("status", "--config", str(self.config), "--json")
        said = self.json(*words)
        assert said.code == code, said
        assert said.error["remedy"]
        assert self.kept() == kept
        after = run("status", "--config", str(self.config), "--json")
        assert (after.code, after.out) == (before.code, before.out)
        return said


def duplicate(folder: Path, other: Path) -> UserFolder:
    """Copy a folder whose federation is one of its own from then on; a plain copy may only be read."""
    home = UserFolder(Path(shutil.copytree(folder, other, dirs_exist_ok=True)))
    store = LocalStore(str(home.store))
    if (identity := read_identity(store)) is not None:
        take_place(store, identity.id)
    return home


def run(*words: str) -> CommandResult:
    """Run the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit, match="^[0-6]$") as end:
        main(list(words))
    code = end.value.code
    assert isinstance(code, int)
    said = CommandResult(code=code, out=out.getvalue(), err=err.getvalue())
    assert "Traceback" not in said.out + said.err, said.err
    return said


def _toml(value: object) -> str:
    """Return a value as TOML, whose strings, numbers and lists are those of JSON."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_toml(entry)}" for name, entry in value.items()) + " }"
    return json.dumps(value)
