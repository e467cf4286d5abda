"""The command ``sisa``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.main import get_command

from cluster.runtime.guard import check_rooms
from cluster.runtime.process import leave_no_core
from deploy.commands.backups import backup, move, restore
from deploy.commands.experiment import experiment
from deploy.commands.inspect import doctor, log, plan
from deploy.commands.keys import keys
from deploy.commands.launch import adopt, launch, stop
from deploy.commands.own_words import own_words
from deploy.commands.rectify import rectify
from deploy.commands.report import report, trace
from deploy.commands.request import requests
from deploy.commands.serve import require_serve, serve, tokens
from deploy.commands.shared import (
    CHOICE,
    DEFAULT_CONFIG,
    AsJson,
    Choice,
    Config,
    ErasedIds,
    ErasedSubjects,
    FileOf,
    HoldReason,
    IncludeSimilar,
    NamesFile,
    RequestId,
    Url,
    Wait,
    finish,
    refuse_site,
    with_either,
    with_federation,
)
from deploy.commands.site import sites
from deploy.views.output import ExitCode, Outcome, Problem, close_streams, open_streams, say, version_outcome

if TYPE_CHECKING:
    from cluster.client import Client
    from cluster.federation import Federation
    from cluster.sites.federation import SiteFederation

app = typer.Typer(
    name="sisa",
    help="Train models that can forget people exactly: SISA training and unlearning on Ray.",
    no_args_is_help=True,
    rich_markup_mode=None,  # else [erasure] is taken for markup, and flags look as if they took a word
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)

Shard = Annotated[list[int] | None, typer.Option("--shard", metavar="NUMBER", help="Only this shard; may be repeated.")]

# typer raises the errors of the click that it uses: the installed one, or in newer versions a copy of its own.
_CLICK = import_module(typer.BadParameter.__module__)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        say(version_outcome(), as_json=False)
        raise typer.Exit


@app.callback()
def choose(
    site: Annotated[
        str | None,
        typer.Option("--site", metavar="NAME", help="Act as this site of a federation of several, on its own store."),
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Simulate all sites of a federation on this machine, as folders.")
    ] = False,
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train models that can forget people exactly: SISA training and unlearning on Ray."""
    CHOICE.set(Choice(site=site, simulate=simulate))


@app.command()
def demo(
    dataset: Annotated[
        str, typer.Option("--dataset", metavar="NAME", help="digits (comes with scikit-learn) or fashion-mnist.")
    ] = "digits",
    folder: Annotated[
        Path, typer.Option("--folder", metavar="FOLDER", help="Where to put data, specification and store.")
    ] = Path("sisa-demo"),
    data_folder: Annotated[
        Path | None, typer.Option("--data-folder", metavar="FOLDER", help="Folder with the Fashion-MNIST IDX files.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="At the end, serve the federation and print tokens for its console.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run everything once on real data: train, predict, erase a person, prove it."""

    def action() -> Outcome:
        from deploy.demo import run_demo

        if serve:
            require_serve()
        return run_demo(dataset, folder, data_folder, quiet=as_json, serve=serve)

    finish(action, as_json)


@app.command()
def init(
    data: Annotated[str, typer.Argument(metavar="data", help="A file, folder or glob of Parquet, Arrow or CSV.")],
    config: Config = DEFAULT_CONFIG,
    id_column: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", help="The id column, where the guess would be wrong.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", metavar="COLUMN", help="The column of the person.")
    ] = None,
    label: Annotated[str | None, typer.Option("--label", metavar="COLUMN", help="The label column.")] = None,
    learner: Annotated[
        str,
        typer.Option("--learner", metavar="NAME", help="A learner from the guide, such as forest or boosting."),
    ] = "torch",
    encoding: Annotated[
        str | None,
        typer.Option("--encoding", metavar="NAME", help="Encoding of CSV files that are not UTF-8, such as cp1252."),
    ] = None,
    add_ids: Annotated[
        Path | None,
        typer.Option(
            "--add-ids",
            metavar="FILE",
            help="First write a copy with a column of ids, and draft the specification for that.",
        ),
    ] = None,
    header: Annotated[
        str | None,
        typer.Option(
            "--header", metavar="NAMES", help="Names of all columns, separated by commas, if the file has no header."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing specification.")] = False,
    as_json: AsJson = False,
) -> None:
    """Inspect a data file and write a commented specification for it."""

    def action() -> Outcome:
        import csv

        from deploy.initialise import draft_fields, draft_text, write_specification

        draft = write_specification(
            data,
            config,
            id_column=id_column,
            subject_column=subject,
            label_column=label,
            encoding=encoding,
            replace=force,
            ids_into=add_ids,
            header=next(csv.reader([header or ""]), []),
            learner=learner,
        )
        copied = f"wrote {add_ids}: the data from now on. Erasures do not reach {data}: delete it or keep it under lock"
        return Outcome(
            data={"config": str(config), **draft_fields(draft)},
            text=f"{f'{copied}{chr(10)}' if add_ids else ''}wrote {config}: review it, then run"
            f" 'sisa train --config {config}'\n{draft_text(draft)}",
        )

    finish(action, as_json)


@app.command()
def train(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Ingest, partition and train; continues where an earlier run stopped."""

    def action(federation: Federation) -> Outcome:
        from deploy.views.watching import status_outcome

        return status_outcome(federation.train(), federation.releases())

    with_federation(action, config, as_json, _together("train_sites"))


@app.command()
def predict(
    data: Annotated[str, typer.Argument(metavar="data", help="A file, folder or glob with the feature columns.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write: .parquet, .arrow or .csv.")],
    config: Config = DEFAULT_CONFIG,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Write the ensemble's predictions for a data file."""

    def afar(client: Client) -> Outcome:
        from deploy.views.remote import remote_predict

        refuse_site("answers are the whole federation's")

        return remote_predict(client, data, out)

    def action(federation: Federation) -> Outcome:
        from shards.data.prediction_files import check_ending

        check_ending(out)
        answers = federation.predict(data)
        points = answers.write(out)
        facts = {
            "out": str(out),
            "points": points,
            **answers.facts,
        }
        text = (
            f"wrote {points:,} predictions to {out}"
            f" (generation {answers.generation}, constituents {answers.constituents} of {answers.shards})"
        )
        return Outcome(data=facts, text=text)

    with_either(action, afar, config, url, as_json, _together("predict_at_sites", data, out))


@app.command()
def evaluate(
    data: Annotated[
        str | None,
        typer.Argument(metavar="data", help="A labelled file, folder or glob; default: the hold-out points."),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    url: Annotated[str | None, typer.Option("--url", metavar="URL", hidden=True)] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how good the ensemble's answers to labelled data are: accuracy, overall and per class, or errors."""
    if url is not None:
        raise typer.BadParameter(
            "only the specification knows which column is the label: evaluate without --url, or compare the labels"
            " with what 'sisa predict --url' writes"
        )

    def action(federation: Federation) -> Outcome:
        from deploy.views.evaluation import evaluation_data, evaluation_text

        evaluation = federation.evaluate(data)
        return Outcome(data=evaluation_data(evaluation), text=evaluation_text(evaluation))

    with_federation(action, config, as_json, _together("evaluate_at_sites", data))


@app.command()
def erase(
    subject: ErasedSubjects = None,
    id_: ErasedIds = None,
    file: NamesFile = None,
    file_of: FileOf = "subjects",
    more: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="More names, after --subject or --id: of the same kind.")
    ] = None,
    request_id: RequestId = None,
    hold: HoldReason = None,
    include_similar: IncludeSimilar = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what it would cost, and which names are unknown.")
    ] = False,
    wait: Wait = False,
    config: Config = DEFAULT_CONFIG,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Erase people or data points: submit one erasure request (a deletion job) and carry it out.

    Without a running coordinator the command does the work itself, so it always waits; interrupting it is safe. With
    [erasure] batch = "until_due" it ends once the points are quarantined, and retraining waits for more requests.
    'sisa request' pauses, extends or withdraws a request.
    """

    def action(federation: Federation) -> Outcome:
        from deploy.views.erasure import check_given, given_names, price_outcome, submit

        check_given(request_id, hold)
        given = given_names(subject or [], id_ or [], more or [], file, file_of)
        if dry_run:
            subjects, ids = given.names()
            with given.lines():
                found = federation.search(subjects=subjects, ids=ids, include_similar=include_similar)
            return price_outcome(found, given)
        return submit(federation, given, request_id=request_id, hold=hold, wait=wait, include_similar=include_similar)

    def afar(client: Client) -> Outcome:
        from deploy.views.erasure import check_given, given_names
        from deploy.views.remote import remote_erase

        check_given(request_id, hold)
        return remote_erase(
            client,
            given_names(subject or [], id_ or [], more or [], file, file_of),
            request_id=request_id,
            hold=hold,
            wait=wait,
            site=CHOICE.get().site,
            include_similar=include_similar,
        )

    if url is not None and dry_run:
        raise typer.BadParameter("--dry-run is not available with --url: use it where the specification is")
    with_either(action, afar, config, url, as_json)


app.command()(rectify)


@app.command()
def readmit(
    subject: Annotated[
        list[str], typer.Option("--subject", metavar="NAME", help="An erased subject who comes back; may be repeated.")
    ],
    reason: Annotated[
        str, typer.Option("--reason", metavar="REASON", help="Why, for the record; without personal data.")
    ],
    request_id: Annotated[
        str | None,
        typer.Option("--request-id", metavar="ID", help="Repeating the command with the same id changes nothing."),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Let erased people come back: their new data points are taken from now on.

    Erased data points stay out, by their ids. A signed statement records the readmission and its reason.
    """

    def action(federation: Federation) -> Outcome:
        from deploy.views.erasure import readmission_outcome

        return readmission_outcome(federation.readmit(subjects=subject, reason=reason, request_id=request_id))

    def afar(client: Client) -> Outcome:
        from deploy.views.erasure import readmission_outcome

        return readmission_outcome(client.readmit(subject, reason, request_id))

    with_either(action, afar, config, url, as_json)


@app.command()
def status(
    request: Annotated[str | None, typer.Argument(metavar="REQUEST", help="Only this erasure request.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every second, until interrupted.")] = False,
    config: Config = DEFAULT_CONFIG,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show the federation: shards × slices, generation, erasure requests with due dates."""

    def action(federation: Federation) -> Outcome:
        from deploy.views.watching import request_outcome, status_outcome, watch_status

        if watch and not as_json:
            watch_status(federation)
        if request is not None:
            return request_outcome(federation, request)
        federation.require_begun()
        return status_outcome(federation.status(), federation.releases())

    def afar(client: Client) -> Outcome:
        from deploy.views.remote import remote_status

        if watch and not as_json:
            from deploy.views.watching import watch_status

            watch_status(client)
        if request is None:
            refuse_site("a server shows the whole federation")
        return remote_status(client, request, CHOICE.get().site)

    with_either(action, afar, config, url, as_json, _together("show_sites", request))


@app.command()
def verify(
    shard: Shard = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also read receipts that an earlier verification found sound.")
    ] = False,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Retrain shards from nothing on the remaining data, compare bytes, and scan the store for residue."""

    def action(federation: Federation) -> Outcome:
        from deploy.views.verifying import verification_outcome

        return verification_outcome(federation.verify(shard or None, everything=everything))

    with_federation(action, config, as_json, None if shard else _together("verify_at_sites", everything=everything))


@app.command()
def receipt(
    request: Annotated[str | None, typer.Argument(metavar="REQUEST", help="The erasure request.")] = None,
    check: Annotated[Path | None, typer.Option("--check", metavar="FILE", help="A receipt to verify, offline.")] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="Public keys of the operator, as 'sisa keys --export' writes them; repeatable.",
        ),
    ] = None,
    salt: Annotated[
        str | None,
        typer.Option(
            "--salt",
            metavar="SALT",
            help="With --check: whether the receipt is about these names; give every name in the request.",
        ),
    ] = None,
    subject: Annotated[
        list[str] | None, typer.Option("--subject", metavar="NAME", help="With --salt; may be repeated.")
    ] = None,
    id_: Annotated[list[str] | None, typer.Option("--id", metavar="NAME", help="With --salt; may be repeated.")] = None,
    config: Config = DEFAULT_CONFIG,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Print the signed receipt of an erasure on stdout, or verify one offline with --check FILE.

    Exit codes of --check: 0 genuine, 3 not genuine, 6 intact, but without --key its issuer is unknown.
    Requests that found nothing also have a receipt, and so do readmissions.
    """

    def issue(federation: Federation) -> Outcome:
        from deploy.views.receipts import print_receipt

        assert request is not None
        return print_receipt(federation.registrar.find(request), quiet=as_json)

    def afar(client: Client) -> Outcome:
        from deploy.views.remote import remote_receipt

        assert request is not None
        return remote_receipt(client, request, quiet=as_json, site=CHOICE.get().site)

    def offline() -> Outcome:
        from deploy.views.receipts import About, check_receipt

        assert check is not None
        about = None if salt is None else About(salt=salt, subjects=tuple(subject or ()), ids=tuple(id_ or ()))
        return check_receipt(check, key or (), about)

    if (request is None) == (check is None):
        raise typer.BadParameter("name an erasure request, or a receipt with --check")
    if (salt is None) != (not subject and not id_) or (salt is not None and check is None):
        raise typer.BadParameter("--salt goes with --check and with the names: --subject, --id")
    if check is not None:  # needs neither a specification nor a server
        finish(offline, as_json)
    with_either(issue, afar, config, url, as_json, _together("receipt_at_sites", request, quiet=as_json))


app.command()(report)
app.command()(trace)
app.command()(doctor)
app.command()(plan)
app.command("log")(log)
app.command()(keys)
app.command()(experiment)
app.command()(launch)
app.command()(stop)
app.command()(adopt)
app.command()(backup)
app.command()(restore)
app.command()(move)
app.command()(serve)
app.add_typer(tokens)
app.add_typer(requests)
app.add_typer(sites)


def _together(name: str, *arguments: Any, **options: Any) -> Callable[[SiteFederation], Outcome]:
    """Return the function of this name in ``deploy.views.sites``, for a federation of several sites."""

    def act(federation: SiteFederation) -> Outcome:
        outcome: Outcome = getattr(import_module("deploy.views.sites"), name)(federation, *arguments, **options)
        return outcome

    return act


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code."""
    if arguments is None:  # this process runs nothing but the command
        leave_no_core()
    words = own_words() if arguments is None else list(arguments)
    as_json = "--json" in words
    open_streams()
    try:
        check_rooms()
        if as_json and {"--version", "--json"}.issuperset(words) and "--version" in words:
            say(version_outcome(), as_json=True)
            code = ExitCode.DONE
        else:
            code = _command()(_in_front(words), prog_name="sisa", standalone_mode=False)
    except _CLICK.ClickException as error:
        if words and type(error).__name__ != "NoArgsIsHelpError":  # not in every click's public names
            say(_usage(error), as_json=as_json)
        else:
            sys.stderr.write(error.format_message() + "\n")  # the help
        code = ExitCode.INVALID
    except (typer.Abort, BrokenPipeError):  # the latter: the reader of the help closed the pipe
        code = ExitCode.FAILED
    close_streams()
    sys.exit(int(code or 0))


@cache
def _command() -> Any:
    """Return all commands with their options, which Typer would read from the functions again at every call."""
    return get_command(app)


def _in_front(words: list[str]) -> list[str]:
    """Return the words with --site and --simulate moved to the front, because they may be written anywhere.

    >>> _in_front(["train", "--site", "north", "--json"])
    ['--site', 'north', 'train', '--json']
    """
    first: list[str] = []
    rest = iter(words)
    others: list[str] = []
    for word in rest:
        if word == "--":
            return [*first, *others, word, *rest]
        if word == "--site":
            first += [word, *(value for value in [next(rest, None)] if value is not None)]
        elif word == "--simulate" or word.startswith("--site="):
            first.append(word)
        else:
            others.append(word)
    return [*first, *others]


def _usage(error: Any) -> Outcome:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "sisa"
    return Outcome(
        problem=Problem(kind="usage", message=error.format_message(), remedy=f"See '{command} --help'."),
        code=ExitCode.INVALID,
    )
