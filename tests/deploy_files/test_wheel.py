"""The wheel that is built from this tree: all of it is in there, and it works without the tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path.name for path in ROOT.glob("*.py"))
ROOMS = ("storage", "shards", "coordinator", "cluster", "deploy")
NEEDED_BY_AUDITORS = ("cryptography", "cffi", "_cffi_backend*", "pycparser", "typing_extensions.py")
LOAD_COMMANDS = """
import sysconfig
from importlib.metadata import distributions
for found in distributions(name="sisa-ray", path=[sysconfig.get_path("purelib")]):
    for command in found.entry_points:
        command.load()
        print(command.name)
"""
LIBRARIES = Path(sysconfig.get_path("purelib"))

pytestmark = pytest.mark.slow


def _run(*words: object, **environment: str) -> str:
    """Run a command outside the tree; return its stdout."""
    inherited = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    done = subprocess.run(
        [str(word) for word in words], cwd="/", env=inherited | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what it is made of."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    for room in ROOMS:
        shutil.copytree(ROOT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*MODULES, "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    _run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, tree)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment into which nothing but the wheel is installed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    scripts = folder / "bin"
    _run(sys.executable, "-m", "pip", "-q", "--python", scripts / "python", "install", "--no-index", "--no-deps", wheel)
    return scripts


def test_all_of_every_room_is_in_it(wheel: Path) -> None:
    """It holds every module of every room and the modules beside them, marks of types, and pages' files; no tests."""
    everything = {path for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file()}
    others = {path for path in (ROOT / "deploy").rglob("*") if path.suffix != ".py" and path.name != "py.typed"}
    files = {path for path in everything - others if "__pycache__" not in path.parts}
    with ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
        (licence,) = [name for name in packed.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
        assert packed.read(licence) == (ROOT / "LICENSE").read_bytes()
    assert names == {*MODULES} | {path.relative_to(ROOT).as_posix() for path in files}


def test_auditors_need_cryptography_alone(scripts: Path, tmp_path: Path) -> None:
    """``sisa-check`` works where of all libraries there is only ``cryptography`` with what that needs itself."""
    for pattern in NEEDED_BY_AUDITORS:
        for library in LIBRARIES.glob(pattern):
            (tmp_path / library.name).symlink_to(library)
    assert "Check receipts and their log, offline" in _run(scripts / "sisa-check", "--help", PYTHONPATH=str(tmp_path))


def test_it_works_with_its_libraries(scripts: Path) -> None:
    """With the libraries that it names, ``import sisa`` and the command are those of the wheel."""
    version = _run(scripts / "sisa", "--version", PYTHONPATH=str(LIBRARIES))
    assert version.startswith("sisa")
    commands = _run(scripts / "python", "-c", LOAD_COMMANDS, PYTHONPATH=str(LIBRARIES)).split()
    assert set(commands) == set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"])
    place = _run(scripts / "python", "-c", "import sisa; print(sisa.Client, sisa.__file__)", PYTHONPATH=str(LIBRARIES))
    assert place.startswith("<class 'cluster.client.Client'> ")
    assert str(scripts.parent) in place
