"""Streams that fail: an encoding that lacks letters, a reader that goes away, a stream that is closed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest

from coordinator.ports import Remark
from deploy.commands.cli import main
from deploy.views.output import Outcome, close_streams, run
from deploy.views.progress import listening
from tests.deploy.views.test_progress import STORY
from tests.doubles.user_folder import UserFolder
from tests.doubles.user_folder import run as sisa

COMMAND = (sys.executable, "-c", "from deploy.commands.cli import main; main()")


class _Gone(io.StringIO):
    """A stream whose reader goes away after some writes."""

    def __init__(self, *, after: int, terminal: bool = False) -> None:
        super().__init__()
        self.left = after
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> int:
        if not self.left:
            raise BrokenPipeError(32, "Broken pipe")
        self.left -= 1
        return super().write(text)


def _closed(terminal: bool) -> io.StringIO:
    stream = _Gone(after=0, terminal=terminal)
    stream.close()
    return stream


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_progress_goes_on_without_its_stream(after: int, terminal: bool) -> None:
    """The work continues if the reader of progress goes away, at once or in the middle, for bars and for lines."""
    stream = _Gone(after=after, terminal=terminal)
    with listening(stream) as listener:
        for notice in STORY:
            listener(notice)
    assert stream.left == 0


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_on_a_closed_stream(terminal: bool) -> None:
    """The work also continues if the stream is closed before or meanwhile; earlier output is kept."""
    with listening(_closed(terminal)) as listener:
        listener(STORY[0])
    stream = _Gone(after=100, terminal=terminal)
    with listening(stream) as listener:
        listener(STORY[0])
        said = stream.getvalue()
        stream.close()
        listener(STORY[1])
    assert said


def test_what_the_action_prints_may_be_lost() -> None:
    """A model's own output to a stderr that is gone does not stop the work, and the outcome is still said."""

    def action() -> Outcome:
        print("epoch 1")  # noqa: T201
        sys.stderr.write("a word\n")
        return Outcome(data={"done": True})

    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(_Gone(after=0)):
        assert run(action, as_json=True) == 0
    assert json.loads(out.getvalue())["data"] == {"done": True}


@pytest.mark.parametrize("as_json", [False, True])
def test_an_outcome_that_nobody_reads(as_json: bool) -> None:
    """A command succeeds even if the reader of stdout goes away."""
    with redirect_stdout(_Gone(after=0)):
        assert run(lambda: Outcome(data={}, text="done"), as_json=as_json) == 0
        close_streams()


def test_help_that_nobody_reads() -> None:
    """Help to a reader that went away ends without a traceback."""
    ended = _with_broken_pipe(lambda pipe: _started("--help", stdout=pipe, stderr=subprocess.PIPE))
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_encoding_of_stdout(encoding: str, trained: UserFolder) -> None:
    """JSON is the same on a stdout of any encoding, and text for people is escaped where letters are missing."""

    def said(*words: str) -> str:
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        with redirect_stdout(out), pytest.raises(SystemExit, match="2"):
            main([*words, "--config", str(trained.config)])
        assert isinstance(out.buffer, io.BytesIO)
        return out.buffer.getvalue().decode(encoding)

    message = json.loads(said("status", "żółw-🐢", "--json"))["error"]["message"]
    assert "żółw-🐢" in message
    assert said("status", "żółw-🐢") == ""


def test_text_is_escaped_where_letters_are_missing(trained: UserFolder) -> None:
    """``×`` on an ASCII stdout is not an error."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with redirect_stdout(out), pytest.raises(SystemExit, match="0"):
        main(["status", "--config", str(trained.config)])
    assert isinstance(out.buffer, io.BytesIO)
    assert b"3 shards \\xd7 2 slices" in out.buffer.getvalue()


@pytest.mark.parametrize(
    ("request_id", "text"),
    [
        ("", "got 0 characters"),
        ("   ", "got 3 characters"),
        ("e" * 201, "got 201 characters"),
        ("er\n1", "not all printable"),
        ("er\x1b[2J", "not all printable"),
        ("er\u202e1", "not all printable"),
        ("er\udcff", "not all printable"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_request_id_must_be_printable(request_id: str, text: str, more: tuple[str, ...], home: UserFolder) -> None:
    """An id that is empty, too long or acts on a terminal is bad input, named before anything else is looked at."""
    said = home.refused("erase", "--subject", "a", "--request-id", request_id, *more)
    assert "a request id is 1 to 200 printable characters" in said.error["message"]
    assert text in said.error["message"]
    assert "\x1b" not in said.out + said.err


def test_a_long_request_id_with_other_letters(trained: UserFolder) -> None:
    """200 characters of any script are an id, and come back as they are."""
    id_ = "żółw 🐢" + "é" * 194
    assert len(id_) == 200
    assert trained.json("erase", "--id", "secret-id-0000", "--request-id", id_).data["request_id"] == id_
    assert id_ in sisa("status", "--config", str(trained.config), "--json").data["requests"][0]["request_id"]


def _started(*words: str, **streams: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *words], check=False, timeout=120, env=os.environ | _ASCII, **streams)


_ASCII = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _with_broken_pipe(act: Callable[[int], subprocess.CompletedProcess[bytes]]) -> subprocess.CompletedProcess[bytes]:
    """Call ``act`` with the writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return act(writer)
    finally:
        os.close(writer)


@pytest.mark.parametrize("words", [("status", "--json"), ("status",)])
def test_a_real_pipe_without_a_reader(words: tuple[str, ...], trained: UserFolder) -> None:
    """A process whose stdout is a pipe that nobody reads ends with its own exit code and says nothing of it."""
    ended = _with_broken_pipe(
        lambda pipe: _started(*words, "--config", str(trained.config), stdout=pipe, stderr=subprocess.PIPE)
    )
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_real_stderr_without_a_reader(home: UserFolder) -> None:
    """A process whose stderr is lost still gives its one object and its own exit code; an error keeps its code."""
    words = ("--config", str(home.config))
    ended = _with_broken_pipe(lambda pipe: _started("status", *words, "--json", stdout=subprocess.PIPE, stderr=pipe))
    assert (ended.returncode, json.loads(ended.stdout)["status"]) == (2, "error")
    ended = _with_broken_pipe(lambda pipe: _started("verify", *words, stdout=subprocess.PIPE, stderr=pipe))
    assert (ended.returncode, ended.stdout) == (2, b"")


def test_streams_that_were_closed_from_the_start(trained: UserFolder) -> None:
    """A process started without stdout and stderr does its work."""
    script = '"$@" >&- 2>&-'
    words = ("sh", "-c", script, "sh", *COMMAND, "status", "--config", str(trained.config))
    assert subprocess.run(words, check=False, timeout=120, env=os.environ | _ASCII).returncode == 0


def test_a_remark_after_the_loss_is_swallowed() -> None:
    """Once lost, a stream that would work again is left alone."""
    stream = _Gone(after=0)
    with listening(stream) as listener:
        listener(Remark(text="one"))
        stream.left = 9
        listener(Remark(text="two"))
    assert stream.getvalue() == ""
