"""Group commit: items that many threads submit at the same time are performed as one batch.

A durable write costs about the same for one item as for a hundred. So callers that come while a batch is being
performed wait in a queue, and the first of them then performs one batch for all. There is no extra thread and no timer:
a single submitter never waits for others.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from storage.errors import InvariantBroken

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True, kw_only=True, eq=False)
class _Submission(Generic[Item, Result]):
    """One item in the queue, and its result."""

    item: Item
    outcome: Future[Result] = field(default_factory=Future)


class GroupCommit(Generic[Item, Result]):
    """Performs items in batches, in the order of their submission."""

    def __init__(self, perform: Callable[[Sequence[Item]], Sequence[Result]], most: int) -> None:
        """Prepare; nothing is performed yet.

        ``perform`` takes 1 to ``most`` items and returns their results in the same order. It is never called by two
        threads at once, and must not call ``submit``. A result may be an exception, which the submitter then handles.
        """
        if most < 1:
            raise InvariantBroken("a batch holds at least one item", most=most)
        self._perform = perform
        self._most = most
        self._changed = threading.Condition()
        self._queue: deque[_Submission[Item, Result]] = deque()  # under ``_changed``
        self._is_performing = False  # under ``_changed``

    def submit(self, item: Item) -> Result:
        """Return the result of ``item`` once this or another thread has performed a batch with it.

        Raises what ``perform`` raised for that batch; later batches are not affected.
        """
        mine = _Submission[Item, Result](item=item)
        try:
            batch = self._wait(mine)
        except BaseException:
            self._withdraw(mine)
            raise
        if batch:
            self._run(batch)
        return mine.outcome.result()

    def _wait(self, mine: _Submission[Item, Result]) -> list[_Submission[Item, Result]]:
        """Queue up; return an empty list when ``mine`` is done, or the batch that this thread has to perform."""
        with self._changed:
            self._queue.append(mine)
            self._changed.wait_for(lambda: mine.outcome.done() or self._leads(mine))
            if mine.outcome.done():
                return []
            self._is_performing = True
            return [self._queue.popleft() for _ in range(min(self._most, len(self._queue)))]

    def _leads(self, mine: _Submission[Item, Result]) -> bool:
        # Only the first in the queue: so a leader's batch always contains its own item.
        return not self._is_performing and bool(self._queue) and self._queue[0] is mine

    def _run(self, batch: Sequence[_Submission[Item, Result]]) -> None:
        """Perform the batch, wake its submitters, and let the next in the queue continue."""
        try:
            results = self._results([each.item for each in batch])
        except BaseException as error:  # noqa: BLE001  each submitter raises it, this thread among them
            for each in batch:
                each.outcome.set_exception(error)
        else:
            for each, result in zip(batch, results, strict=True):
                each.outcome.set_result(result)
        finally:
            with self._changed:
                self._is_performing = False
                self._changed.notify_all()

    def _results(self, items: Sequence[Item]) -> Sequence[Result]:
        results = self._perform(items)
        if len(results) != len(items):
            raise InvariantBroken("a batch has as many results as items", items=len(items), results=len(results))
        return results

    def _withdraw(self, mine: _Submission[Item, Result]) -> None:
        """Take an interrupted submission out of the queue, so that another one can lead."""
        with self._changed:
            if mine in self._queue:
                self._queue.remove(mine)
            self._changed.notify_all()
