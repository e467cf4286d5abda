"""The commands with ``--url``: they ask a server, with a token, and need no specification and no store.

Loads neither Ray nor torch.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from cluster.client import Client, RemoteAnswers, brought_up_to
from cluster.results.sites import SitesStatus
from cluster.writer.drafting import new_request_id
from coordinator.receipts.bundles import bundle_from_bytes
from coordinator.status import RequestStatus
from deploy.views.erasure import (
    Given,
    erase_outcome,
    interrupted_outcome,
    refuse_late_hold,
    request_data,
    with_private_facts,
)
from deploy.views.output import Outcome, json_value
from deploy.views.receipts import print_receipt
from deploy.views.sites import sites_status_outcome, who, who_text
from deploy.views.text import releases_text, request_text, status_text
from shards.csv_form import USUAL_CSV
from shards.data.folders.image_files import path_within
from shards.data.messages import NOT_BASE64, tables_of, with_bytes
from shards.data.prediction_files import check_ending, write_answers
from shards.data.sources import Source, in_csv_form, is_text, open_source, seen_csv_form
from shards.learner_kinds.guarantees import weakest
from storage.errors import Invalid, ObjectMissing, Unavailable
from storage.objects import new_name
from storage.release import RELEASE

_POINTS_A_REQUEST = 10_000
_IMAGES_A_REQUEST = 64
_BYTES_A_REQUEST = 8 * 1024 * 1024
"""The size of the columns; a quarter of what a server accepts by default."""
_PATIENCE_SECONDS = 365 * 86_400.0


def open_client(url: str, token: str) -> Client:
    """Return a client of the server at ``url``; warns on stderr if the connection is not encrypted.

    Raises ``Invalid`` when there is no token, or when the address or the token is malformed.
    """
    if not token:
        raise Invalid(
            "a server asks for a token, and SISA_TOKEN is not set",
            "Set SISA_TOKEN to a token, which the server's operator makes with 'sisa token create'.",
        )
    client = Client(url, token)
    if client.can_be_overheard:
        sys.stderr.write("warning: the token is sent unencrypted, and anyone who reads it can use it: use https\n")
    return client


def remote_predict(client: Client, data: str, out: Path) -> Outcome:
    """Send a data file with all its columns, and write the answers, which may be of several generations.

    Raises ``Invalid`` when the file cannot be read or does not fit.
    """
    check_ending(out)
    found = list[RemoteAnswers]()
    answers = _answers(client, data, found)
    first = next(answers, None)
    if first is None:
        raise Invalid("the file holds no data point", "Name another file.", file=data)
    batches = (batch for table in chain([first], answers) for batch in table.to_batches())
    points = write_answers(out, first.schema, batches)
    facts = {"out": str(out), "points": points, **_ensembles(found)}
    generations = " and ".join(map(str, facts["generations"]))
    text = (
        f"wrote {points:,} predictions to {out}"
        f" (generation {generations}, constituents {facts['constituents']} of {facts['shards']})"
    )
    if found[-1].sites:
        text = f"{text}\n{who_text(found[-1].sites, found[-1].absent)}"
    return Outcome(data=facts, text=text)


def remote_erase(
    client: Client,
    given: Given,
    *,
    request_id: str | None,
    hold: str | None,
    wait: bool,
    site: str | None = None,
    include_similar: bool = False,
) -> Outcome:
    """Submit an erasure request; with ``wait``, return how it ended. ``site``: for a server of several sites.

    Raises as ``Client.erase`` does, and ``Conflict`` when the request was submitted before without a pause.
    """
    earlier = None if request_id is None else _looked_up(client, request_id, site)
    refuse_late_hold(hold, earlier)
    # Drawn here, so that it is known after an interrupt.
    own_id = new_request_id(new_name) if request_id is None else request_id
    subjects, ids = map(tuple, given.names())
    submit = partial(
        client.erase,
        subjects=subjects,
        ids=ids,
        request_id=own_id,
        held=hold or "",
        site=site,
        include_similar=include_similar,
    )
    try:
        answer = submit()
        if wait:
            answer = brought_up_to(answer, _followed(client, answer.request, site), submit)
    except KeyboardInterrupt:
        return interrupted_outcome(_looked_up(client, own_id, site), None)
    except Unavailable as error:
        again = f"Then repeat it with --request-id {own_id}: if it was accepted, that is the same request"
        raise Unavailable(error.fact, f"{error.remedy} {again}.", **error.context) from error
    return with_private_facts(erase_outcome(answer.request, None, earlier), given.private_facts(answer), given.in_file)


def remote_status(client: Client, request_id: str | None, site: str | None = None) -> Outcome:
    """Return the status of the federation, or of one request. Raises ``ObjectMissing`` if the request is unknown."""
    if request_id is not None:
        return remote_request(client.request(request_id, site))
    status = client.status_of_any()
    shown = replace(status, store=status.store or "the server's store")
    if isinstance(shown, SitesStatus):
        return sites_status_outcome(shown)
    releases = {"command": RELEASE, "server": client.server_release or "unknown"}
    return Outcome(data={**json_value(status), "releases": releases}, text=status_text(shown) + releases_text(releases))


def remote_receipt(client: Client, request_id: str, *, quiet: bool, site: str | None = None) -> Outcome:
    """Return a request's receipt for stdout, and explain it on stderr unless ``quiet``. Raises ``ObjectMissing``."""
    return print_receipt(bundle_from_bytes(client.receipt(request_id, site)), quiet=quiet)


def remote_request(request: RequestStatus) -> Outcome:
    """Return the outcome of a request as a server reports it."""
    reason = f": {request.reason}" if request.reason else ""
    text = (
        f"request {request.request_id} is {request.state}{reason}; {request.points} data points, due {request.due_at}"
    )
    return Outcome(data=request_data(request, None), text=f"{text}\n{request_text(request, None)}")


def _looked_up(client: Client, request_id: str, site: str | None) -> RequestStatus | None:
    try:
        return client.request(request_id, site)
    except ObjectMissing:
        return None


def _followed(client: Client, request: RequestStatus, site: str | None) -> RequestStatus:
    """Return a request when it is over, paused or failed; print its states on stderr until then."""
    state = ""
    for request in chain([request], client.follow(request, _PATIENCE_SECONDS, site)):  # noqa: B020, PLR1704  the last one
        if request.state != state:
            state = request.state
            sys.stderr.write(f"request {request.request_id}: {state}\n")
    return request


def _answers(client: Client, data: str, found: list[RemoteAnswers]) -> Iterator[Any]:
    source = open_source(data, Path.cwd())
    images, row = list[str](), 1
    for table in _tables(source):
        waiting, number = deque([table]), row
        row += table.num_rows
        while waiting:
            part = waiting.popleft()
            try:
                answers = client.predict(part)
            except Invalid as error:
                if not (named := _image_columns(error, part)):
                    raise
                images = sorted({*images, *named})
                waiting.extendleft(reversed(list(_with_images(part, images, source, number))))
                continue
            number += part.num_rows
            found.append(replace(answers, table=None))
            yield answers.table


def _image_columns(error: Invalid, table: Any) -> list[str]:
    """Return which columns of paths have to be sent as images: without a specification only the server knows that.

    It decodes texts as Base64, which a path with a file extension never is.
    """
    if NOT_BASE64 not in str(error):
        return []
    texts = [field.name for field in table.schema if is_text(field.type)]
    return [name for name in texts if re.search(rf"column={re.escape(name)}( \w+=|\])", str(error))]


def _with_images(table: Any, columns: Iterable[str], source: Source, first: int) -> Iterator[Any]:
    """Yield the data points with images in place of their paths, in parts that fit into a request."""
    folders = {file.folder for file in source.files}
    folder = next(iter(folders)) if len(folders) == 1 else None
    for start in range(0, table.num_rows, _IMAGES_A_REQUEST):
        part = table.slice(start, _IMAGES_A_REQUEST)
        for name in columns:
            if is_text(part.schema.field(name).type):
                rows = enumerate(part.column(name).to_pylist(), start=first + start)
                part = with_bytes(part, name, [_payload(folder, path, name, row) for row, path in rows])
        yield from _fitting(part)


def _payload(folder: Path | None, path: str | None, column: str, row: int) -> bytes | None:
    if not path:
        return None
    file = None if folder is None else path_within(folder, path)
    with suppress(OSError, ValueError):
        if file is not None:
            return file.read_bytes()
    raise Invalid(
        "a data point names an image file that cannot be read",
        "Correct the path, relative to the data file and in its folder or below, or give the image's bytes.",
        column=column,
        row=row,
    )


def _tables(source: Source) -> Iterator[Any]:
    """Yield a file's data points as tables that fit into a request.

    No specification describes CSV files here: their delimiter is detected, and the decimal sign is a point.
    """
    source = in_csv_form(source, replace(seen_csv_form(source), decimal=USUAL_CSV.decimal))
    for table in tables_of(source, _POINTS_A_REQUEST):
        yield from _fitting(table)


def _fitting(table: Any) -> Iterator[Any]:
    points = max(1, table.num_rows * _BYTES_A_REQUEST // max(table.nbytes, _BYTES_A_REQUEST))
    yield from (table.slice(start, points) for start in range(0, table.num_rows, points))


def _ensembles(found: Iterable[RemoteAnswers]) -> dict[str, Any]:
    """Return which ensembles answered; if they differ, ``generation`` and ``constituents`` are the lowest.

    The guarantee is one that holds for all answers.

    For a federation of several sites, also return which sites took part in the last answer.
    """
    answers = list(found)
    generations = sorted({each.generation for each in answers})
    return {
        "generation": generations[0],
        "generations": generations,
        "constituents": min(each.constituents for each in answers),
        "shards": answers[0].shards,
        "guarantee": weakest(each.guarantee for each in answers),
        **(who(answers[-1].sites, answers[-1].absent) if answers[-1].sites else {}),
    }
