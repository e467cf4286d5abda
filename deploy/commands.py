"""What all commands share: options, a federation to act on, an end with an exit code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

from deploy.output import Outcome, plain, run
from deploy.settings import read_environment

if TYPE_CHECKING:
    from cluster.federation import Federation

Config = Annotated[Path, typer.Option("--config", help="The federation's specification.", show_default=True)]
AsJson = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]

DEFAULT_CONFIG: Final = Path("sisa.toml")


def with_federation(action: Callable[[Federation], Outcome], config: Path, as_json: bool) -> NoReturn:
    """Do ``action`` on the federation that ``config`` describes, with progress on stderr."""

    def whole() -> Outcome:
        import cluster
        from deploy.progress import listening

        with listening() as listener, cluster.connect(config, listener=listener) as federation:
            return action(federation)

    finish(whole, as_json)


def finish(action: Callable[[], Outcome], as_json: bool) -> NoReturn:
    """Do ``action``, say how it ended, and exit with its code."""
    raise typer.Exit(run(action, as_json=as_json, tracebacks=read_environment().tracebacks))


def fields(value: Any) -> dict[str, Any]:
    """Return a result's fields, ready for JSON."""
    found: dict[str, Any] = plain(value)
    return found
