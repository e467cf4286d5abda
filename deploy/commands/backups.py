"""The commands ``sisa backup``, ``sisa restore`` and ``sisa move``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.commands.launch import store_of
from deploy.commands.shared import DEFAULT_CONFIG, AsJson, Config, finish, is_of_all_sites, read_all_sites, read_chosen
from deploy.views.output import Outcome, json_value

if TYPE_CHECKING:
    from cluster.backups.recovery import Erased, Restored
    from cluster.config.sites import SitesSpecification
    from cluster.config.specification import FederationSpecification
    from coordinator.ports import Listener

Place = Annotated[str, typer.Argument(metavar="PLACE", help="A folder, or s3://bucket/prefix.")]
Endpoint = Annotated[
    str | None,
    typer.Option("--endpoint", metavar="URL", help="The places' S3 server; default: the specification's endpoint."),
]
Profile = Annotated[
    str | None,
    typer.Option("--credentials", metavar="PROFILE", help="The places' credentials; default: the specification's."),
]


def backup(
    place: Place,
    keys: Annotated[
        str | None,
        typer.Option("--keys", metavar="PLACE", help="Where the keys go: a place that readers of PLACE cannot read."),
    ] = None,
    without_keys: Annotated[
        bool, typer.Option("--without-keys", help="Back up no key; docs/backup.md says what that means.")
    ] = False,
    keep: Annotated[
        int, typer.Option("--keep", metavar="NUMBER", help="Backups to keep; erased data stays in older ones.")
    ] = 1,
    endpoint: Endpoint = None,
    credentials: Profile = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Write a consistent backup of the federation while it keeps working. The next backup replaces this one."""

    def action() -> Outcome:
        from cluster.backups.backup import back_up
        from cluster.runtime.system import SystemClock
        from storage.errors import Invalid

        if (keys is None) != without_keys:
            raise Invalid(
                "a backup without its keys cannot be read, and keys at the same place protect nobody",
                "Name another place for the keys with --keys, or say --without-keys if they are safe elsewhere.",
            )
        name, store = store_of(config)
        places = _places(config, endpoint, credentials)
        with _counting("copied") as progress:
            made = back_up(
                store,
                name,
                places(place),
                None if keys is None else places(keys),
                now=SystemClock().now,
                progress=progress,
                keep=keep,
            )
        text = (
            f"backup {made.number} of {name} is in {made.place}, as of {made.at}: {made.objects} objects,"
            f" {made.bytes:,} bytes\n"
            + (f"its keys are in {made.keys}: anyone who has both can read everything\n" if made.keys else _NO_KEYS)
            + "data erased from now on stays in it until the next backup"
        )
        return Outcome(data=json_value(made), text=text)

    finish(action, as_json)


_NO_KEYS = "IT HAS NO KEYS: it can be restored only where 'keys' of the specification has survived\n"


def restore(
    place: Place,
    keys: Annotated[
        str | None, typer.Option("--keys", metavar="PLACE", help="Where 'sisa backup --keys' has put the keys.")
    ] = None,
    number: Annotated[
        int | None, typer.Option("--number", metavar="NUMBER", help="Which backup; default: the last one.")
    ] = None,
    take_keys: Annotated[
        bool, typer.Option("--take-keys", help="The store that 'keys' belonged to is lost: take them over.")
    ] = False,
    endpoint: Endpoint = None,
    credentials: Profile = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Restore a backup, or a plain copy of a store, to the empty place that the specification names.

    Data points that were erased since the backup, according to the witness, are withdrawn before anything is answered.
    If interrupted, repeat the command.
    """

    def action() -> Outcome:
        from cluster.backups.recovery import restore as restored_from
        from cluster.backups.restore import Circumstances
        from cluster.runtime.system import SystemClock

        name, store = store_of(config)
        places = _copies(config, endpoint, credentials)
        with _counting("restored") as progress:
            restored = restored_from(
                store,
                places(place),
                None if keys is None else places(keys),
                Circumstances(
                    now=SystemClock().now(),
                    progress=progress,
                    take_keys=take_keys,
                    has_partition_key=_has_partition_key(config),
                ),
                reason=f"restored from {place}",
                erase=lambda: _erase(config),
                number=number,
            )
        return Outcome(data=json_value(restored), text=_text(name, restored))

    finish(action, as_json)


def move(
    place: Place,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep", help="Keep the old store, which holds its keys, as a copy; you have to delete it yourself."
        ),
    ] = False,
    endpoint: Endpoint = None,
    credentials: Profile = None,
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Move the store to another, empty place, and delete it here. Afterwards change 'store' in the specification.

    Stop the coordinator first ('sisa stop'). Keys in a place of their own stay there. If interrupted, repeat the
    command.
    """

    def action() -> Outcome:
        from cluster.backups.move import move as moved_to
        from cluster.runtime.system import SystemClock

        name, store = store_of(config)
        with _counting("moved") as progress:
            moved = moved_to(
                store,
                _places(config, endpoint, credentials)(place),
                now=SystemClock().now(),
                progress=progress,
                keep=keep,
            )
        text = f'{name} is in {moved.place} now: {moved.objects} objects\nwrite store = "{moved.place}" in {config}'
        if moved.left:
            text += f"\n{moved.left} objects stay in {store.location}: no erasure reaches them; delete them yourself"
        return Outcome(data=json_value(moved), text=text)

    finish(action, as_json)


def _has_partition_key(config: Path) -> bool:
    """Return whether the specification has the partition key, or none is needed."""
    return is_of_all_sites(config) or read_chosen(config).partition.key is not None


def _text(name: str, restored: Restored) -> str:
    as_of = f"as of {restored.at}" if restored.at else "a plain copy, taken at an unknown time"
    lines = [
        f"{name} is restored from {restored.place} ({as_of}): {restored.objects} objects",
        f"it is a separate federation, with the id {restored.id}: nothing in it refers to the original",
        *_erased(restored.erased, restored.at or "the copy was made"),
        "'sisa train' finishes open requests; create new tokens for the API ('sisa token create')",
    ]
    return "\n".join(lines)


def _erased(erased: Erased, since: str) -> list[str]:
    if not erased.is_known:
        return [
            f"NO RECORD HERE SAYS WHAT WAS ERASED SINCE {since}: no witness is set that could say it",
            "before using it for answers, submit again every request that was accepted since then, under its old id",
        ]
    lines = [f"erased since the backup, and now withdrawn again: {', '.join(erased.again) or 'nothing'}"]
    if erased.forgotten:
        lines += [
            f"CARRIED OUT SINCE, AND THE NAMES IN THEM ARE NOT KNOWN HERE: {', '.join(erased.forgotten)}",
            "nothing is answered until they are submitted again, by name and under these ids",
        ]
    if erased.behind:
        lines.append(
            f"THE WITNESS KNOWS OF {erased.behind} MORE STATEMENTS, AND NOT WHAT THEY STATE: submit again every request"
            f" that was accepted since {since}"
        )
    return lines


def _erase(config: Path) -> Erased:
    """Withdraw the data points that were erased since the backup; a federation of several sites has no data itself."""
    from cluster.backups.recovery import Erased, erase_since
    from deploy.views.progress import listening

    if is_of_all_sites(config):
        return Erased(is_known=True)
    with listening() as listener:
        return erase_since(read_chosen(config), listener)


@contextmanager
def _counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that reports on stderr how many objects are done, at every further tenth."""
    from coordinator.ports import Remark
    from deploy.views.progress import listening

    with listening() as listener:
        yield _tenths(listener, what, Remark)


def _tenths(listener: Listener, what: str, remark: Any) -> Callable[[int, int], None]:
    said = -1

    def progress(done: int, of: int) -> None:
        nonlocal said
        tenth = 10 * done // of if of else 10
        if tenth > said:
            said = tenth
            listener(remark(text=f"{what} {done:,} of {of:,} objects"))

    return progress


def _specification(config: Path) -> SitesSpecification | FederationSpecification:
    return read_all_sites(config) if is_of_all_sites(config) else read_chosen(config)


def _places(config: Path, endpoint: str | None, profile: str | None) -> Callable[[str], Any]:
    """Return a function that opens a place for writing; paths are relative to the current folder."""
    from storage.location import open_store

    return lambda place: open_store(place, Path.cwd(), *_server(config, place, endpoint, profile))


def _copies(config: Path, endpoint: str | None, profile: str | None) -> Callable[[str], Any]:
    """Return a function that opens a place for reading, which any tool may have written."""
    from storage.backups.sources import open_copy

    return lambda place: open_copy(place, Path.cwd(), *_server(config, place, endpoint, profile))


def _server(config: Path, place: str, endpoint: str | None, profile: str | None) -> tuple[str | None, str | None]:
    """Return endpoint and profile of a place: those given, else the specification's; none for a folder."""
    from storage.location import is_on_s3

    if not is_on_s3(place):
        return None, None
    specification = _specification(config)
    return endpoint or specification.endpoint, profile or (None if endpoint else specification.credentials)
