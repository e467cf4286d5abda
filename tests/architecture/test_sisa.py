"""``import sisa``: the front door's names, and a guard against other packages under our rooms' names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cluster
import sisa
from cluster.client import Client
from cluster.config.specification import TABLES, FederationSpecification
from cluster.runtime.guard import check_folder
from storage.errors import Invalid

ROOT = Path(__file__).parents[2]


def _python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` with ``folder`` before everything else on the path, as Python does with the current one."""
    lines = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]; {code}"
    return subprocess.run([sys.executable, "-c", lines], cwd=folder, capture_output=True, text=True, check=False)


def test_its_names_are_the_front_doors() -> None:
    """Every name of it is that of the room it comes from, and there is no other."""
    assert sisa.launch is cluster.launch
    assert sisa.connect is cluster.connect
    assert sisa.Federation is cluster.Federation
    assert sisa.Client is Client
    assert sisa.Specification is FederationSpecification
    settings = {name for name in sisa.__all__ if name.endswith("Settings")}
    assert settings == {each.__name__ for name, each in TABLES.items() if name}
    assert all(getattr(sisa, each.__name__) is each for name, each in TABLES.items() if name)
    assert set(sisa.__all__) <= set(dir(sisa))
    with pytest.raises(AttributeError, match=r"^module 'sisa' has no attribute 'lunch'$"):
        sisa.lunch  # type: ignore[attr-defined]  # noqa: B018


def test_a_client_loads_neither_ray_nor_torch(tmp_path: Path) -> None:
    """A process that only asks a server is small."""
    code = "import sisa; sisa.Client; print([name for name in ('ray', 'torch', 'boto3') if name in sys.modules])"
    done = _python(tmp_path, code)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("other", ["storage/__init__.py", "cluster.py", "deploy/__init__.py"])
def test_another_package_of_a_rooms_name_is_named(tmp_path: Path, other: str) -> None:
    """The error names both packages, so that the user knows which one to rename."""
    room = other.partition("/")[0].removesuffix(".py")
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).write_text("")
    done = _python(tmp_path, "import sisa")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: Python finds {tmp_path / other} for the package '{room}'")
    assert str(ROOT / room) in last


@pytest.mark.parametrize("other", ["storage/__init__.py", "cluster.py"])
def test_a_specification_beside_such_a_package_is_refused(tmp_path: Path, other: str) -> None:
    """Workers import from the specification's folder first, so the package is refused before they start and die."""
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).write_text("")
    with pytest.raises(Invalid, match=r"would be taken for sisa-ray's own package"):
        check_folder(tmp_path)


def test_a_folder_of_files_is_not_a_package(tmp_path: Path) -> None:
    """A store in ./storage hides no package, nor does a specification in this repository's own folder."""
    (tmp_path / "storage" / "shards").mkdir(parents=True)
    check_folder(tmp_path)
    check_folder(ROOT)
