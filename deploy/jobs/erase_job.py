"""A Ray job that submits an erasure request to the federation's coordinator, and ends.

    ray job submit -- sisa-erase-job --config /etc/sisa/sisa.toml --file /run/sisa/requests/names.txt --request-id 4711

The command ``sisa-erase-job`` (``sisa_jobs``) finds this module even if the job's working folder has a package
``deploy`` of its own, unlike ``python -m deploy.jobs.erase_job``.

The names are read from a file on the node where the job runs. They must be in neither the job's command, nor its
``runtime_env``, nor its ``working_dir``: Ray keeps all three with the cluster's metadata and shows them on its
dashboard, where no erasure reaches them.

Once the job has printed "accepted", the coordinator carries the request out and the job is no longer needed. A job
that is lost before that may be submitted again under the same request id. If no coordinator is running, the job
refuses: if it did the work itself, the erasure would depend on how long the job lives.

The job prints no salt, because Ray keeps what jobs print. So nobody can show later whom the receipt is about. To be
able to show that, submit the request with 'sisa erase' or over HTTP instead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cluster.config.specification import FederationSpecification, read_specification
from cluster.coordinator_actor.launch import find_coordinator
from cluster.writer.writer import drafted, writer_setup
from coordinator.ports import ignore_notice
from coordinator.requests import ErasureRequest
from deploy.commands.shared import DEFAULT_CONFIG, Config, finish
from deploy.views.erasure import given_names
from deploy.views.output import ExitCode, Outcome, close_streams, open_streams
from storage.errors import Unavailable


def submitted(
    specification: FederationSpecification, subjects: Iterable[str], ids: Iterable[str], request_id: str
) -> ErasureRequest:
    """Have the coordinator accept the request durably, and return it; this process is not needed to carry it out.

    The same ``request_id`` with the same names is the same request (D4). Raises ``Unavailable`` when no coordinator is
    running, and what ``cluster.writer.writer.drafted`` raises.
    """
    setup = writer_setup(specification, listener=ignore_notice)
    coordinator = find_coordinator(setup.store, ignore_notice, lambda _: None)
    if coordinator is None:
        raise Unavailable(
            "no coordinator is at work on this federation",
            "Start it with 'sisa launch', and repeat the request with the same --request-id.",
            federation=specification.name,
        )
    return coordinator.accept(*drafted(setup, subjects=subjects, ids=ids, request_id=request_id, held=""))


def erase(
    file: Annotated[Path, typer.Option("--file", help="A text file on this node, one subject per line.")],
    request_id: Annotated[
        str, typer.Option("--request-id", help="Repeating the job with the same id changes nothing.")
    ],
    file_of: Annotated[
        str, typer.Option("--file-of", help="What the lines of the file are: subjects or ids.")
    ] = "subjects",
    config: Config = DEFAULT_CONFIG,
) -> NoReturn:
    """Submit an erasure request to the federation's coordinator; prints one JSON object, without any name."""

    def action() -> Outcome:
        subjects, ids = given_names((), (), (), file, file_of).names()
        request = submitted(read_specification(config), subjects, ids, request_id)
        return Outcome(data={"request_id": request.request_id, "state": request.shown.value, "due_at": request.due_at})

    finish(action, as_json=True)


def main() -> NoReturn:
    """Run the job and exit with the code of ``sisa erase``."""
    open_streams()
    try:
        _app(prog_name="erase_job")
    finally:
        close_streams()
    sys.exit(ExitCode.DONE)


_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_app.command()(erase)

if __name__ == "__main__":
    main()
