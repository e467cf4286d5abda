"""Commands that one process runs one after another, where what counts is not the start of each of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.doubles.user_folder import CommandResult
from tests.ray.commands import ROOT

_SCRIPT = """
import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout

from cluster.config.specification import ClusterSettings
from cluster.runtime.session import join_ray, leave_ray
from deploy.commands.cli import main

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Ray prints there
stays = sys.argv[1] == "one"
if stays:
    join_ray(ClusterSettings())
for line in sys.stdin:
    out, err, code = io.StringIO(), io.StringIO(), None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(json.loads(line))
        except SystemExit as end:
            code = end.code
    if not stays:
        leave_ray()
    answers.write(json.dumps([code, out.getvalue(), err.getvalue()]) + "\\n")
    answers.flush()
leave_ray()
"""


@dataclass(frozen=True, slots=True)
class CommandProcess:
    """The process."""

    process: subprocess.Popen[str]

    def run(self, *words: str) -> CommandResult:
        """Run a command to its end."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{json.dumps(words)}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the process has ended"
        code, out, err = json.loads(line)
        assert "Traceback" not in out + err, err
        return CommandResult(code=code, out=out, err=err)


@contextmanager
def several_commands(
    folder: Path, further: Mapping[str, str] | None = None, *, one_ray: bool
) -> Iterator[CommandProcess]:
    """Give a process for commands in this folder, with ``further`` environment variables.

    With ``one_ray`` all of its commands share a local Ray of its own; otherwise each joins, or starts, one itself.
    """
    with subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, "one" if one_ray else "each"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(further or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield CommandProcess(process)
            assert process.stdin
            process.stdin.close()
            assert process.wait() == 0
        finally:
            process.kill()
