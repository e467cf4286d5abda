"""What the command says about itself: version, help, completion, and the error for a name without an option."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from deploy.commands.cli import app
from tests.doubles.user_folder import UserFolder, run

COMMANDS = sorted(each.name or getattr(each.callback, "__name__", "") for each in app.registered_commands)


def completed(*words: str) -> list[str]:
    """Return what bash would offer after these words."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[4]),
        "_SISA_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["sisa", *words]),
        "COMP_CWORD": str(len(words)),
    }
    script = "from deploy.commands.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    return done.stdout.split()


def test_the_version_is_reported() -> None:
    """``--version`` names the release, to people and as JSON."""
    assert run("--version").out == f"sisa-ray {version('sisa-ray')}\n"
    for words in (("--version", "--json"), ("--json", "--version")):
        assert run(*words).data["version"] == version("sisa-ray")
    assert run("train", "--version").code == 2


def test_the_shell_completes_commands_and_options() -> None:
    """Completion offers commands, the commands of groups, and options."""
    assert completed("st") == ["status", "stop"]
    assert "release" in completed("request", "")
    assert "--request-id" in completed("erase", "--re")
    assert "--install-completion" in run("--help").out


@pytest.mark.parametrize("command", [*COMMANDS, "request hold", "token create", "site erase"])
def test_help_says_what_options_take(command: str) -> None:
    """No flag looks as if it took a value, and no value is described by a placeholder in angle brackets."""
    said = run(*command.split(), "--help")
    assert said.code == 0
    assert "<" not in said.out.partition("Options:")[2].replace("<=", "")
    assert "--json " in said.out


def test_help_keeps_the_names_of_tables() -> None:
    """The name of a table in brackets is printed, and not taken for markup."""
    assert '[erasure] batch = "until_due"' in run("erase", "--help").out


def test_a_bare_name_is_explained(home: UserFolder) -> None:
    """``sisa erase alice`` says how to erase a person and how to erase a data point, without repeating the name."""
    said = home.run("erase", "alice")
    assert said.code == 2
    assert "sisa erase --subject NAME" in said.err
    assert "sisa erase --id NAME" in said.err
    assert "alice" not in said.err


def test_all_groups_are_plain() -> None:
    """Groups of commands print help without markup, as the commands do."""
    groups = [each.typer_instance for each in app.registered_groups]
    assert all(isinstance(each, typer.Typer) and each.rich_markup_mode is None for each in groups)
