"""SIGTERM: as an interrupt, with an exit code of its own."""

from __future__ import annotations

import json
import signal

import pytest

from deploy.views.output import ExitCode, Outcome, Terminated, run


def test_sigterm_interrupts_and_is_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """The command unwinds and says that it was interrupted; afterwards SIGTERM does what it did before."""
    before = signal.getsignal(signal.SIGTERM)
    unwound: list[str] = []

    def action() -> Outcome:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            unwound.append("closed")
        return Outcome()

    assert run(action, as_json=True) == ExitCode.TERMINATED
    assert ExitCode.TERMINATED.value == 143
    assert (unwound, signal.getsignal(signal.SIGTERM)) == (["closed"], before)
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "interrupted"


def test_it_is_the_exit_code_of_what_goes_on_after_an_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    """An interrupted action can still report how far it got; only a second SIGTERM would end it at once."""
    handlers = []

    def action() -> Outcome:
        try:
            signal.raise_signal(signal.SIGTERM)
        except Terminated:
            handlers.append(signal.getsignal(signal.SIGTERM))
        return Outcome(text="as far as this")

    assert run(action, as_json=False) == 143
    assert (capsys.readouterr().out, handlers) == ("as far as this\n", [signal.SIG_DFL])
