"""The container image: its versions are pinned, it runs as an unprivileged user, and it contains nothing unintended."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatchcase
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.deploy_files.manifests import ROOT

DOCKERFILE = ROOT / "deploy" / "container" / "Dockerfile"
IGNORED = ROOT / "deploy" / "container" / "Dockerfile.dockerignore"
VARIANTS = ("cpu", "cuda")
REQUIREMENTS = ("build.txt", "serve.txt", "torch-cpu.txt", "torch-cuda.txt")
_IMAGE = {"python_version": "3.11", "python_full_version": "3.11.14"}
"""Environment markers whose values in the image differ from those of the Python that runs the tests."""
_ROOMS = ("storage", "shards", "coordinator", "cluster", "deploy")

_packaging: Any = import_module("packaging.requirements")


class Instruction(NamedTuple):
    """One instruction of the Dockerfile, its lines joined."""

    word: str
    rest: str


class Stage(NamedTuple):
    """One build stage: a ``FROM`` and the instructions after it."""

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
    """Return all instructions of a variant, starting with those of the stages that it is built on."""
    stage = STAGES[variant]
    return [*(_whole(stage.base) if stage.base in STAGES else ()), *stage.instructions]


def _pinned() -> dict[str, str]:
    """Return the versions in constraints.txt by normalised names."""
    found = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    return {_normal(name): version for name, version in found}


def _hashed(name: str) -> dict[str, tuple[str, list[str]]]:
    """Return the version and the hashes of each requirement in a requirements file."""
    text = (DOCKERFILE.parent / "requirements" / name).read_text(encoding="utf-8").replace("\\\n", "")
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    assert all("==" in words[0] for words in lines)
    listed = [(words[0].split("=="), words[1:]) for words in lines]
    return {name: (version, [each.removeprefix("--hash=sha256:") for each in rest]) for (name, version), rest in listed}


def _need(name: str, extras: frozenset[str], needed: set[str]) -> None:
    """Add the distribution and everything it needs, with these extras and on the image's system, to ``needed``."""
    todo = [(_normal(name), extras)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        one = todo.pop()
        if one in seen:
            continue
        seen.add(one)
        needed.add(one[0])
        for text in metadata.requires(one[0]) or ():
            requirement = _packaging.Requirement(text)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({**_IMAGE, "extra": extra}) for extra in ("", *one[1])):
                todo.append((_normal(requirement.name), frozenset(requirement.extras)))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_base_is_fixed_by_its_digest() -> None:
    """There is only one base image, named by tag and by SHA-256, and its Python is the oldest that we support."""
    bases = {stage.base for stage in STAGES.values()} - STAGES.keys()
    (base,) = bases
    found = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", base)
    assert found is not None
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    assert f">={found.group(1)}.{found.group(2)}" == wanted


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_runs_as_root(variant: str) -> None:
    """Each variant ends up running as user 10001, the number in the manifests; the image creates that user."""
    users = [rest for word, rest in _whole(variant) if word == "USER"]
    assert users[-1] == "10001:10001"
    assert STAGES[variant].instructions[-2].word == "USER"
    made = " ".join(rest for word, rest in _whole(variant) if word == "RUN")
    assert "--uid 10001" in made
    assert "--gid 10001" in made


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_unknown_is_run_or_added(variant: str) -> None:
    """No script is piped from the network into a shell, nothing is added from a URL, and no secret is built in."""
    for word, rest in _whole(variant):
        assert word in {"FROM", "RUN", "ENV", "COPY", "WORKDIR", "USER", "CMD", "HEALTHCHECK"}
        assert not re.search(r"(curl|wget)\s.*\|", rest)
        assert "sudo" not in rest
        if word == "ENV":
            assert not re.search(r"(KEY|SECRET|PASSWORD|TOKEN)\w*=", rest)
        if word in {"COPY", "CMD"}:
            assert "://" not in rest


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_installed_without_its_hash(variant: str) -> None:
    """Each ``pip install`` requires hashes, or installs the wheel of our own code without its dependencies."""
    runs = [rest for stage in (variant, "wheel") for word, rest in _whole(stage) if word == "RUN" and "pip " in rest]
    commands = [command for run in runs for command in run.split("&&") if re.search(r"pip (install|wheel)", command)]
    assert len(commands) > 4
    for command in commands:
        if "--require-hashes" not in command:
            assert "--no-deps" in command
            assert "--no-index" in command or "--no-build-isolation" in command
        assert "--extra-index-url" not in command
        if "--index-url" in command:
            assert "--no-deps" in command
    installed = {Path(name).name for run in runs for name in re.findall(r"-r (\S+)", run)}
    assert installed == {"build.txt", "serve.txt", f"torch-{variant}.txt"}


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_hashes_are_those_of_the_versions_that_were_tested(name: str) -> None:
    """Every requirement has SHA-256 hashes, and the version in constraints.txt unless it is a CUDA library of torch."""
    pinned = _pinned()
    listed = _hashed(name)
    assert listed
    for package, (version, hashes) in listed.items():
        assert hashes, package
        assert all(re.fullmatch(r"[0-9a-f]{64}", each) for each in hashes)
        if name == "torch-cuda.txt" and re.match(r"nvidia-|cuda-|triton$", package):
            continue
        assert pinned.get(package) == version, f"{package}: run 'make hashes'"


def test_all_that_the_package_needs_has_hashes() -> None:
    """The files list exactly what the package needs with its extra, including indirect dependencies."""
    needed: set[str] = set()
    _need("sisa-ray", frozenset({"serve"}), needed)
    listed = {*_hashed("serve.txt"), *_hashed("torch-cpu.txt")}
    assert listed == needed - {"sisa-ray"}, "run 'make hashes'"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_change_of_our_code_changes_the_last_layer_alone(variant: str) -> None:
    """The last instruction that makes a layer installs our code, as a wheel; no earlier one copies any of it."""
    layers = [rest for word, rest in _whole(variant) if word in {"RUN", "COPY"}]
    assert "--mount=type=bind,from=wheel" in layers[-1]
    assert not any(room in rest.split() for rest in layers[:-1] for room in (*_ROOMS, "sisa.py", "pyproject.toml"))


def test_an_ill_container_is_seen() -> None:
    """The health check of both variants asks the Ray node's agent, at its port and with a time-out."""
    services: Any = import_module("ray._private.ray_constants")
    (check,) = [rest for word, rest in STAGES["base"].instructions if word == "HEALTHCHECK"]
    assert f"127.0.0.1:{services.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT}/api/local_raylet_healthz" in check
    assert '"wget"' in check
    assert "wget" in STAGES["base"].instructions[0].rest
    assert '"-T", "5"' in check


def test_the_extra_is_there() -> None:
    """The extra that the image installs exists: it brings Ray with its own extras."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert any(requirement.startswith("ray[") for requirement in extras["serve"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_debian_leaves_nothing_behind(variant: str) -> None:
    """Packages are installed without recommended ones, and the layer that fetches package lists also deletes them."""
    for word, rest in _whole(variant):
        if word == "RUN" and "apt-get install" in rest:
            assert "--no-install-recommends" in rest
            assert "rm -rf /var/lib/apt/lists/*" in rest


def test_ray_asks_for_a_token_and_reports_to_nobody() -> None:
    """The image requires a token, sends no usage reports, and sets all Ray variables that ``session`` sets."""
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
    """The build context has exactly the files that are copied, and they exist: no stores, no data, no .git."""
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
    assert {path for path in copied if Path(path).parts[0] not in _ROOMS or path in _ROOMS} == allowed
    assert {*_ROOMS, "pyproject.toml"} <= copied
    assert all((ROOT / source).exists() for source in copied)
    denied = [pattern for pattern in patterns[1:] if not pattern.startswith("!")]
    assert any(fnmatchcase("storage/__pycache__", pattern) for pattern in denied)


def test_what_the_package_needs_is_copied() -> None:
    """The files that pyproject.toml names are in the build's context: README, licence and all rooms."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    source = {word for _, rest in STAGES["wheel"].instructions for word in rest.split()}
    assert {project["project"]["readme"], *project["project"]["license-files"]} <= source
    packages = {pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= source
    assert {f"{module}.py" for module in project["tool"]["setuptools"]["py-modules"]} <= source
    assert Path(ROOT / "deploy" / "jobs" / "__init__.py").exists()
