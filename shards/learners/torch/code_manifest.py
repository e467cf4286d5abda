"""The code manifest (E14): a record of everything a model is made of, taken during its rehearsal. Part of the lineage.

It lists the user's modules that were loaded while the model was built, trained and used for predictions, with the
digests of their sources; the installed packages that these import, with their versions; and the declared files, with
their digests.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import packages_distributions, version
from typing import Any, Final, Self

from shards.learners.torch.model_code import OWN_ROOMS, imported_names, is_installed, read_source
from shards.learners.torch.user_modules import locate
from storage.digests import Json, Sha256, digest_of, sha256

_IN_THE_PROFILE: Final = "torch"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeManifest:
    """Everything that a model is made of."""

    modules: Mapping[str, Sha256]
    """Digests of the user's sources, by module."""
    packages: Mapping[str, str]
    """Distributions with their versions, by imported top-level package."""
    files: Mapping[str, Sha256]
    """Digests of the declared files, by name."""

    @classmethod
    def of(
        cls, factory: str, modules: Iterable[str], files: Mapping[str, Sha256], imported: Iterable[str] = ()
    ) -> Self:
        """Return the manifest of these modules; a source that this process has already read is not read again.

        The packages are those that the modules import, and those in ``imported``. A module that does not exist is left
        out.
        """
        sources = {name: file for name in modules if (file := locate(name)) is not None and file.is_file()}
        tops = {*imported, _top(factory.partition(":")[0])}
        for name, file in sources.items():
            if file.suffix == ".py":
                package = name if file.stem == "__init__" else name.rpartition(".")[0]
                tops.update(map(_top, imported_names(read_source(file), package)))
        return cls(
            modules={name: sha256(read_source(file)) for name, file in sorted(sources.items())},
            packages=_versions(tops),
            files=dict(sorted(files.items())),
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the manifest that ``record`` describes."""
        return cls(modules=record["modules"], packages=record["packages"], files=record["files"])

    def present(self, factory: str, files: Mapping[str, Sha256]) -> CodeManifest:
        """Return the manifest of the same modules as this process finds them now."""
        return CodeManifest.of(factory, self.modules, files, self.packages)

    def record(self) -> dict[str, Json]:
        """Return the manifest as values for canonical JSON."""
        return {"modules": dict(self.modules), "packages": dict(self.packages), "files": dict(self.files)}

    def digest(self) -> Sha256:
        """Return the digest that identifies this manifest."""
        return digest_of(self.record())

    def differences(self, present: CodeManifest) -> list[str]:
        """Return descriptions of what differs in ``present``, sorted.

        >>> mine = CodeManifest(modules={}, packages={"numpy": "numpy 2.1"}, files={})
        >>> mine.differences(CodeManifest(modules={}, packages={"numpy": "numpy 2.2"}, files={}))
        ['package numpy: numpy 2.1 then, numpy 2.2 now']
        """
        found = [f"module {name} has changed" for name in _differing(self.modules, present.modules)]
        found += [f"file {name} has changed" for name in _differing(self.files, present.files)]
        for name in _differing(self.packages, present.packages):
            then, now = (each.packages.get(name, "absent") for each in (self, present))
            found.append(f"package {name}: {then} then, {now} now")
        return sorted(found)


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]


def _top(name: str) -> str:
    return name.partition(".")[0]


def _versions(tops: Iterable[str]) -> dict[str, str]:
    """Return the versions of the installed packages among ``tops``, except the user's, Python's and our own."""
    left_out = sys.stdlib_module_names | OWN_ROOMS | {_IN_THE_PROFILE, ""}
    return {top: found for top in sorted(set(tops) - left_out) if (found := _version(top))}


@cache
def _version(top: str) -> str:
    """Return the distributions that provide ``top``, with their versions; empty when it is not installed.

    For a package without a distribution, return the digest of its sources.
    """
    place = locate(top)
    if place is not None and not is_installed(place):
        return ""
    if names := _distributions().get(top):
        return ", ".join(f"{name} {version(name)}" for name in sorted(set(names)))
    if place is None:
        return ""
    files = sorted(place.parent.rglob("*.py")) if place.stem == "__init__" else [place]
    found: dict[str, Json] = {str(file.relative_to(place.parent)): sha256(file.read_bytes()) for file in files}
    return f"sources {digest_of(found)}"


@cache
def _distributions() -> Mapping[str, Sequence[str]]:
    return packages_distributions()
