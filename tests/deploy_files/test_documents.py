"""The documents: every command, option, file, heading and permission that they name exists."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import typer

from deploy.commands.cli import app
from deploy.jobs.erase_job import erase
from tests.deploy_files.manifests import KUBERAY
from tests.documents import DOCUMENTS, ROOT, text_of

OPERATIONS = text_of("docs/operations.md")
TEXTS = {str(document.relative_to(ROOT)): text_of(str(document)) for document in DOCUMENTS}
COMMANDS = {"README.md": 8, "docs/guide.md": 20, "docs/cluster.md": 4, "docs/serving.md": 8, "docs/sites.md": 12}
COMMANDS |= {
    "docs/operations.md": 15,
    "docs/backup.md": 10,
    "docs/upgrades.md": 4,
    "docs/guarantees.md": 2,
    "deploy/examples/sites/README.md": 8,
}
"""Least number of commands on each page that has some: a pattern that finds none would prove nothing."""
SISA: Any = typer.main.get_command(app)
_JOB = typer.Typer()
_JOB.command()(erase)
JOB: Any = typer.main.get_command(_JOB)

IAM = {
    "abort_multipart_upload": {"s3:AbortMultipartUpload"},
    "complete_multipart_upload": {"s3:PutObject"},
    "create_multipart_upload": {"s3:PutObject"},
    "delete_objects": {"s3:DeleteObject", "s3:DeleteObjectVersion"},
    "get_bucket_replication": {"s3:GetReplicationConfiguration"},
    "get_bucket_versioning": {"s3:GetBucketVersioning"},
    "get_object": {"s3:GetObject"},
    "get_object_legal_hold": {"s3:GetObjectLegalHold"},
    "get_object_lock_configuration": {"s3:GetBucketObjectLockConfiguration"},
    "get_object_retention": {"s3:GetObjectRetention"},
    "head_bucket": {"s3:ListBucket"},
    "head_object": {"s3:GetObject"},
    "list_multipart_uploads": {"s3:ListBucketMultipartUploads"},
    "list_object_versions": {"s3:ListBucketVersions"},
    "put_object": {"s3:PutObject"},
    "upload_part": {"s3:PutObject"},
}
"""What each request that storage sends needs (AWS Service Authorization Reference, actions of Amazon S3)."""


def _blocks(text: str, language: str = "") -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for written_in, block in blocks if written_in == language]


def _spans(text: str) -> list[str]:
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", outside)]


def _lines(text: str) -> Iterator[str]:
    """Yield what may be commands: inline code, and the lines of blocks without their comments."""
    yield from _spans(text)
    for block in _blocks(text):
        yield from (re.sub(r"\s+# .*$", "", line) for line in block.splitlines())


def _commands(text: str, program: str) -> list[list[str]]:
    """Return the words after each call of ``program``, at a line's start, after ``--`` or in quotes."""
    pattern = re.compile(rf"(?:^|-- |')({re.escape(program)} [^';|]*)")
    calls = (call for line in _lines(text) for call in pattern.findall(line))
    return [shlex.split(call)[len(program.split()) :] for call in calls]


def _check(command: Any, words: list[str]) -> None:
    """Assert that the words are a command of ours, each option one of its own; ``--site`` may stand before it."""
    path = []
    if words[:1] == ["--simulate"]:
        words = words[1:]
    if words[:1] == ["--site"]:
        words = words[2:]
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        path.append(words[0])
        assert words[0] in command.commands, f"there is no command {' '.join(path)}"
        command, words = command.commands[words[0]], words[1:]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert used <= {*options, "--help", "-h"}, f"{' '.join(path)} has no {used - options}"


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_exists(name: str) -> None:
    """Each ``sisa ...`` is a command, with options that it has."""
    commands = _commands(TEXTS[name], "sisa")
    assert len(commands) >= COMMANDS.get(name, 0)
    for words in commands:
        _check(SISA, words)


def test_manifests_call_commands_that_exist() -> None:
    """Entry points of jobs, and commands in comments, are ours too."""
    texts = [path.read_text(encoding="utf-8") for path in (*KUBERAY.rglob("*.yaml"), ROOT / "deploy/ray-up/aws.yaml")]
    calls = [match for text in texts for match in re.findall(r"(?:entrypoint: |')(sisa [^'\n]+)", text)]
    assert len(calls) > 2
    for call in calls:
        _check(SISA, shlex.split(call)[1:])


def test_the_erasure_job_has_these_options() -> None:
    """The job's own options are those that the operations page and the manifests give it."""
    program = "sisa-erase-job"
    manifest = (KUBERAY / "jobs" / "erase.yaml").read_text(encoding="utf-8").partition(f"{program} ")[2]
    calls = [shlex.split(manifest.partition("\n  active")[0])]
    for line in (
        *_lines(OPERATIONS),
        *re.findall(r'"([^"]*)"', _blocks(OPERATIONS, "python")[0].replace('"\n    "', "")),
    ):
        calls += [shlex.split(part) for part in line.split(f"{program} ")[1:]]
    assert len(calls) == 3
    for words in calls:
        _check(JOB, words)
        # A job runs in a folder of Ray's, where no specification is found by itself.
        required = {parameter.opts[0] for parameter in JOB.params if parameter.required} | {"--config"}
        assert required <= set(words)


def test_ray_has_these_options() -> None:
    """Each option after ``ray start`` is one of the version that we pin."""
    start: Any = import_module("ray.scripts.scripts").start
    calls = [call for text in TEXTS.values() for call in _commands(text, "ray start")]
    assert len(calls) == 4
    for words in calls:
        _check(start, words)


@pytest.mark.parametrize("name", TEXTS)
def test_every_file_exists(name: str) -> None:
    """Each path into the repository leads to a file or folder."""
    if name == "CHANGELOG.md":
        return  # names files of its time
    for path in re.findall(r"(?<![\w/.])(?:deploy|cluster|tests|docs|overlays)/[\w./-]+\b", TEXTS[name]):
        folder = ROOT / "deploy" / "kuberay" if path.startswith("overlays/") else ROOT
        assert (folder / path).exists(), path


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_somewhere(name: str) -> None:
    """Each link within the repository leads to a file, and to a heading where it names one."""
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target.read_text(encoding="utf-8")), link


def _anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as hosts of repositories make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_found_from_the_readme() -> None:
    """The README links every page in docs, and each page those of the folder that has its name: dated figures."""
    linked = {(ROOT / link).resolve() for link in re.findall(r"\]\(([^)#\s]+)\)", TEXTS["README.md"])}
    for page in linked & set(DOCUMENTS):
        found = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
        linked |= {each for link in found if (each := (page.parent / link).resolve()).parent == page.with_suffix("")}
    assert {page for page in DOCUMENTS if page.is_relative_to(ROOT / "docs")} <= linked
    assert len(TEXTS["README.md"].splitlines()) <= 150


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if _blocks(text, "python")])
def test_python_can_be_run(name: str) -> None:
    """Each example in Python compiles, and imports what exists."""
    for example in _blocks(TEXTS[name], "python"):
        for node in ast.walk(ast.parse(example)):
            if isinstance(node, ast.Import):
                assert all(find_spec(alias.name) for alias in node.names)
            if isinstance(node, ast.ImportFrom):
                assert node.module
                assert find_spec(node.module)


def test_the_permissions_are_those_that_storage_needs() -> None:
    """Each kind of request to S3 in storage has its permission in the operations page, which names no others."""
    sources = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "storage").rglob("*.py"))]
    verbs = "get|put|delete|list|head|create|abort|complete|upload|copy"
    sent = {name for source in sources for name in re.findall(rf'"((?:{verbs})_[a-z_]+)"', source)}
    assert sent == IAM.keys()
    named = set(re.findall(r"`(s3:\w+)`", OPERATIONS))
    assert named == set().union(*IAM.values())
