"""The code manifest lists everything a model is made of, so that it differs whenever the model may differ."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shards.learners.torch import code_manifest, model_code
from shards.learners.torch.code_manifest import CodeManifest
from shards.learners.torch.user_modules import locate
from storage.digests import sha256


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Returns a folder for the user's modules, on the path; its subfolder has installed packages."""
    (tmp_path / "site-packages").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    """Clear the caches, as in a new process."""
    model_code.read_source.cache_clear()
    model_code._installed_places.cache_clear()
    code_manifest._version.cache_clear()
    code_manifest._distributions.cache_clear()


def write(file: Path, text: str) -> None:
    """Write a file and the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def install(packages: Path, version: str) -> None:
    """Install a distribution that provides the module ``odd_zoo``."""
    info = packages / f"odd_zoo-{version}.dist-info"
    write(info / "METADATA", f"Metadata-Version: 2.1\nName: odd-zoo\nVersion: {version}\n")
    write(info / "RECORD", "odd_zoo.py,,\n")


def test_modules_are_named_without_being_run(folder: Path) -> None:
    """This includes modules of packages; a module that does not exist is left out."""
    write(folder / "odd_pack" / "__init__.py", "raise RuntimeError\n")
    write(folder / "odd_pack" / "inner.py", "raise RuntimeError\n")
    write(folder / "odd_space" / "inner.py", "raise RuntimeError\n")
    names = ["odd_pack", "odd_pack.inner", "odd_space.inner", "odd_space", "odd_none", "odd_pack.none"]
    found = CodeManifest.of("odd_pack:net", names, {"base.pt": sha256(b"weights")})
    assert found.modules == dict.fromkeys(
        ["odd_pack", "odd_pack.inner", "odd_space.inner"], sha256(b"raise RuntimeError\n")
    )
    assert found.files == {"base.pt": sha256(b"weights")}
    assert not [name for name in sys.modules if name.startswith("odd_")]
    assert locate("odd_pack.inner") == folder / "odd_pack" / "inner.py"


def test_installed_packages_are_named_with_their_versions(folder: Path) -> None:
    """Those of import statements wherever they stand; not Python's own, torch (in the profile), ours or absent ones."""
    write(
        folder / "odd_net.py",
        "import json, torch, shards.models\nfrom numpy import linalg\n"
        "def build():\n    try:\n        import odd_absent\n    except ImportError:\n        import yaml\n",
    )
    found = CodeManifest.of("odd_net:build", ["odd_net"], {})
    assert found.packages["numpy"] == f"numpy {np.__version__}"
    assert found.packages["yaml"].lower().startswith("pyyaml ")
    assert set(found.packages) == {"numpy", "yaml"}
    assert set(CodeManifest.of("odd_net:build", ["odd_net"], {}, ["pyarrow"]).packages) == {"numpy", "yaml", "pyarrow"}


def test_a_package_without_a_distribution_is_named_by_its_sources(folder: Path) -> None:
    """A folder copied into site-packages is identified by its sources, and a later change to it is noticed."""
    write(folder / "site-packages" / "odd_dep" / "__init__.py", "K = 1.0\n")
    write(folder / "odd_net.py", "from odd_dep import K\n")
    first = CodeManifest.of("odd_net:build", ["odd_net"], {})
    assert first.packages["odd_dep"].startswith("sources ")
    assert first.present("odd_net:build", {}) == first
    write(folder / "site-packages" / "odd_dep" / "inner.py", "K = 2.0\n")
    forget()
    second = first.present("odd_net:build", {})
    assert second != first
    (difference,) = first.differences(second)
    assert difference.startswith("package odd_dep: sources ")


def test_an_upgraded_distribution_is_noticed(folder: Path) -> None:
    """An upgrade shows in the version, even if the package contains the factory itself."""
    packages = folder / "site-packages"
    write(packages / "odd_zoo.py", "import json\n")
    install(packages, "1.0")
    first = CodeManifest.of("odd_zoo:net", ["odd_zoo"], {})
    shutil.rmtree(packages / "odd_zoo-1.0.dist-info")
    install(packages, "1.1")
    forget()
    assert first.differences(first.present("odd_zoo:net", {})) == ["package odd_zoo: odd-zoo 1.0 then, odd-zoo 1.1 now"]


def test_a_manifest_survives_its_record(folder: Path) -> None:
    """A manifest equals its record read back, and manifests that differ in any part have different digests."""
    write(folder / "odd_net.py", "import numpy\n")
    found = CodeManifest.of("odd_net:build", ["odd_net"], {"base.pt": sha256(b"weights")})
    assert CodeManifest.from_record(found.record()) == found
    others = [
        CodeManifest(modules={}, packages=found.packages, files=found.files),
        CodeManifest(modules=found.modules, packages={}, files=found.files),
        CodeManifest(modules=found.modules, packages=found.packages, files={}),
    ]
    assert len({each.digest() for each in [found, *others]}) == 4
    assert [len(found.differences(each)) for each in others] == [1, 1, 1]
