"""The container image: fixed where it can be, run by nobody special, holding nothing but what is meant to be in it."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.deploy_files.manifests import ROOT

DOCKERFILE = ROOT / "deploy" / "container" / "Dockerfile"
IGNORED = ROOT / "deploy" / "container" / "Dockerfile.dockerignore"
VARIANTS = ("cpu", "cuda")
_ROOMS = ("storage", "shards", "coordinator", "cluster", "deploy")


class Instruction(NamedTuple):
    """One instruction of the Dockerfile, its lines joined."""

    word: str
    rest: str


class Stage(NamedTuple):
    """What one ``FROM`` begins."""

    name: str
    base: str
    instructions: tuple[Instruction, ...]


def _instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def _stages(text: str) -> dict[str, Stage]:
    stages: dict[str, Stage] = {}
    name = ""
    for instruction in _instructions(text):
        if instruction.word == "FROM":
            base, _, name = instruction.rest.partition(" AS ")
            stages[name] = Stage(name, base, ())
        else:
            stages[name] = stages[name]._replace(instructions=(*stages[name].instructions, instruction))
    return stages


STAGES = _stages(DOCKERFILE.read_text(encoding="utf-8"))


def _whole(variant: str) -> list[Instruction]:
    """Return all instructions of a variant, those of the stages it is built on first."""
    stage = STAGES[variant]
    return [*(_whole(stage.base) if stage.base in STAGES else ()), *stage.instructions]


def _pinned(package: str) -> str:
    found = re.search(rf"^{package}==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found.group(1)


def test_the_base_is_fixed_by_its_digest() -> None:
    """Whatever is not a stage of ours is named by tag and SHA-256, and there is one base only."""
    bases = {stage.base for stage in STAGES.values()} - STAGES.keys()
    (base,) = bases
    found = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", base)
    assert found is not None
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    assert f">={found.group(1)}.{found.group(2)}" == wanted


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_runs_as_root(variant: str) -> None:
    """The last user of each variant is a number above 10000, the one that the manifests name, with a home."""
    users = [rest for word, rest in _whole(variant) if word == "USER"]
    assert users[-1] == "10001:10001"
    assert STAGES[variant].instructions[-2].word == "USER"
    made = " ".join(rest for word, rest in _whole(variant) if word == "RUN")
    assert "--uid 10001" in made
    assert "--gid 10001" in made


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_unknown_is_run_or_added(variant: str) -> None:
    """No script from the network is run, nothing is added from an address, and no secret is built in."""
    for word, rest in _whole(variant):
        assert word in {"FROM", "RUN", "ENV", "COPY", "WORKDIR", "USER", "CMD"}
        assert not re.search(r"(curl|wget)\s.*\|", rest)
        assert "sudo" not in rest
        if word == "ENV":
            assert not re.search(r"(KEY|SECRET|PASSWORD|TOKEN)\w*=", rest)
        if word in {"COPY", "CMD"}:
            assert "://" not in rest


@pytest.mark.parametrize("variant", VARIANTS)
def test_versions_are_those_that_were_tested(variant: str) -> None:
    """Every package comes under constraints.txt; torch, which comes first, is of the version that stands there."""
    installs = [rest for word, rest in _whole(variant) if word == "RUN" and "pip install" in rest]
    (text,) = installs
    assert f"torch=={_pinned('torch')}" in text
    assert "-c /src/constraints.txt" in text
    assert "/src[serve]" in text
    assert "--extra-index-url" not in text
    commands = [command for command in text.split("&&") if "pip install" in command]
    assert all("--no-deps" in command or "-c /src/constraints.txt" in command for command in commands)


def test_the_extra_is_there() -> None:
    """What the image installs beside the package is an extra of it."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert any(requirement.startswith("ray[") for requirement in extras["serve"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_debian_leaves_nothing_behind(variant: str) -> None:
    """Packages come without recommendations, and their lists go with the layer that fetched them."""
    for word, rest in _whole(variant):
        if word == "RUN" and "apt-get install" in rest:
            assert "--no-install-recommends" in rest
            assert "rm -rf /var/lib/apt/lists/*" in rest


def test_ray_asks_for_a_token_and_reports_to_nobody() -> None:
    """Both are on in the image, whoever starts it, and Ray's other variables are those that ``session`` sets."""
    settings = dict(
        pair.split("=", 1)
        for word, rest in STAGES["base"].instructions
        if word == "ENV"
        for pair in rest.split()
        if "=" in pair
    )
    assert settings["RAY_AUTH_MODE"] == "token"
    assert settings["RAY_USAGE_STATS_ENABLED"] == "0"
    session = (ROOT / "cluster" / "runtime" / "session.py").read_text(encoding="utf-8")
    ours = dict(re.findall(r'setdefault\("(RAY_\w+)", "(\w+)"\)', session))
    assert ours.items() <= settings.items()


def test_what_is_copied_is_there_and_nothing_else_can_be() -> None:
    """Each thing copied exists and is let into the build's context, which begins empty: no store, no data, no .git."""
    patterns = [
        line for line in IGNORED.read_text(encoding="utf-8").splitlines() if line.strip() and not line.startswith("#")
    ]
    assert patterns[0] == "*"
    allowed = {pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")}
    copied: set[str] = set()
    for word, rest in (each for stage in STAGES.values() for each in stage.instructions):
        if word == "COPY":
            *sources, _ = rest.split()
            copied |= set(sources)
    assert copied == allowed
    assert {*_ROOMS, "pyproject.toml", "constraints.txt"} <= copied
    assert all((ROOT / source).exists() for source in copied)
    denied = [pattern for pattern in patterns[1:] if not pattern.startswith("!")]
    assert any(fnmatchcase("storage/__pycache__", pattern) for pattern in denied)


def test_what_the_package_needs_is_copied() -> None:
    """The files that pyproject.toml names are in the build's context: README, licence and all rooms."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    source = {word for _, rest in STAGES["source"].instructions for word in rest.split()}
    assert {project["project"]["readme"], *project["project"]["license-files"]} <= source
    packages = {pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= source
    assert {f"{module}.py" for module in project["tool"]["setuptools"]["py-modules"]} <= source
    assert Path(ROOT / "deploy" / "jobs" / "__init__.py").exists()
