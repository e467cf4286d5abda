"""The command ``sisa-check``: checks receipts and logs without the other packages of sisa-ray.

It needs Python and ``cryptography``, no specification and no store. An import contract keeps everything else out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from deploy.views.growth import check_growth
from deploy.views.new_keys import check_keys
from deploy.views.output import ExitCode, Outcome, Problem, close_streams, open_streams, run, say, version_outcome
from deploy.views.receipts import About, check_receipt

_CODES = "exit codes: 0 genuine, 2 wrong usage or bad input, 3 not genuine, 6 intact, but no trusted key was given"


class _Misused(Exception):
    """The arguments make no sense."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Misused(message)


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run the command in ``words``, and exit with its code."""
    open_streams()
    given = sys.argv[1:] if words is None else list(words)
    try:
        asked = _parser().parse_args(given)
        _refuse_half_an_opening(asked)
    except _Misused as error:
        problem = Problem(kind="usage", message=str(error), remedy="See 'sisa-check --help'.")
        say(Outcome(problem=problem, code=ExitCode.INVALID), as_json="--json" in given)
        code = ExitCode.INVALID
    else:
        code = run(lambda: _outcome(asked), as_json=asked.json)
    close_streams()
    raise SystemExit(code)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="sisa-check", description="Check receipts and their log, offline.", epilog=_CODES)
    parser.add_argument("--version", action="version", version=version_outcome().text)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{receipt,log,keys}")
    receipt = commands.add_parser("receipt", help="whether a receipt is genuine, and whom it is about", epilog=_CODES)
    receipt.add_argument("file", type=Path, metavar="RECEIPT", help="the file, as it was handed over")
    receipt.add_argument("--salt", help="whether it is about these names; give every name in the request")
    receipt.add_argument("--subject", action="append", default=[], metavar="NAME", help="with --salt; repeatable")
    receipt.add_argument("--id", action="append", default=[], metavar="NAME", help="with --salt; repeatable")
    log = commands.add_parser("log", help="whether a log continues an earlier checkpoint", epilog=_CODES)
    log.add_argument("earlier", type=Path, metavar="EARLIER", help="a checkpoint that you kept, or a receipt")
    log.add_argument(
        "later", type=Path, metavar="LATER", help="the newest one with its proof: 'sisa log EARLIER --json'"
    )
    keys = commands.add_parser("keys", help="whether new keys are signed by keys that you already have", epilog=_CODES)
    keys.add_argument("file", type=Path, metavar="NEW", help="the new file that 'sisa keys --export' wrote")
    for each in (receipt, log, keys):
        each.add_argument(
            "--key",
            action="append",
            default=[],
            type=Path,
            metavar="FILE",
            required=each is not receipt,
            help="public keys of the operator, as 'sisa keys --export' writes them; repeatable",
        )
        each.add_argument("--json", action="store_true", help="print exactly one JSON object on stdout")
    return parser


def _outcome(asked: argparse.Namespace) -> Outcome:
    if asked.command == "log":
        return check_growth(asked.earlier, asked.later, asked.key)
    if asked.command == "keys":
        return check_keys(asked.file, asked.key)
    about = None if asked.salt is None else About(salt=asked.salt, subjects=tuple(asked.subject), ids=tuple(asked.id))
    return check_receipt(asked.file, asked.key, about)


def _refuse_half_an_opening(asked: argparse.Namespace) -> None:
    if asked.command == "receipt" and (asked.salt is None) != (not asked.subject and not asked.id):
        raise _Misused("--salt goes with the names: --subject, --id")


if __name__ == "__main__":
    main()
