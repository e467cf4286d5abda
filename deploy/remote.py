"""The same commands against a server: ``--url`` in place of a specification, a token in place of the store's keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from cluster.client import Client
from coordinator.bundles import bundle_from_bytes
from coordinator.status import RequestStatus
from deploy.output import Outcome, plain
from deploy.receipts import print_receipt
from deploy.text import status_text
from shards.exchange import batch_of, tables_of
from shards.predictions import PredictionBatch, check_ending, write_predictions
from shards.sources import open_source
from storage.errors import Invalid

_POINTS_A_REQUEST = 10_000
_PATIENCE_SECONDS = 365 * 86_400.0


def remote_predict(client: Client, data: str, out: Path) -> Outcome:
    """Have a data file answered, all of its columns sent, and write the answers; they may be of several generations.

    Raises ``Invalid`` when the file cannot be read or does not fit.
    """
    check_ending(out)
    generations = list[int]()
    answers = _answers(client, data, generations)
    found = next(answers, None)
    if found is None:
        raise Invalid("the file holds no data point", "name another one", file=data)
    first, classes, id_column = found
    points = write_predictions(out, chain([first], (batch for batch, _, _ in answers)), classes, id_column)
    told = " and ".join(map(str, sorted(set(generations))))
    facts = {"out": str(out), "points": points, "generations": sorted(set(generations))}
    return Outcome(data=facts, text=f"wrote {points:,} predictions to {out} (generation {told})")


def remote_erase(
    client: Client, subjects: Iterable[str], ids: Iterable[str], *, request_id: str | None, hold: str | None, wait: bool
) -> Outcome:
    """Submit an erasure request, and with ``wait`` return how it ended. Raises as ``Client.erase`` does."""
    patience = _PATIENCE_SECONDS if wait else 0.0
    request = client.erase(subjects=subjects, ids=ids, request_id=request_id, held=hold or "", wait_seconds=patience)
    return _told(request)


def remote_status(client: Client, request_id: str | None) -> Outcome:
    """Return how the federation stands, or one request. Raises ``ObjectMissing`` when there is no such request."""
    if request_id is not None:
        return _told(client.request(request_id))
    status = client.status()
    return Outcome(data=plain(status), text=status_text(status))


def remote_receipt(client: Client, request_id: str, *, quiet: bool) -> Outcome:
    """Return a request's receipt for stdout, told to people on stderr unless ``quiet``. Raises ``ObjectMissing``."""
    return print_receipt(bundle_from_bytes(client.receipt(request_id)), quiet=quiet)


def _told(request: RequestStatus) -> Outcome:
    reason = f": {request.reason}" if request.reason else ""
    text = (
        f"request {request.request_id} is {request.state}{reason}; {request.points} data points, due {request.due_at}"
    )
    return Outcome(data=plain(request), text=text)


def _answers(
    client: Client, data: str, generations: list[int]
) -> Iterator[tuple[PredictionBatch, tuple[str, ...], str | None]]:
    for table in tables_of(open_source(data, Path.cwd()), _POINTS_A_REQUEST):
        found = client.predict(table)
        generations.append(found.generation)
        yield batch_of(found.table)
