"""Group commit: what many threads hand in at one time is done in one go.

A write that is made durable costs about the same for one item as for a hundred. So a caller that comes while a batch is
being performed waits in a queue, and the first in the queue then performs one batch for all. There is no thread and no
timer: nothing waits for company, and a single submitter is served at once.
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
    """One item in the queue, and what became of it."""

    item: Item
    outcome: Future[Result] = field(default_factory=Future)


class GroupCommit(Generic[Item, Result]):
    """Performs items in batches, in the order of their submission."""

    def __init__(self, perform: Callable[[Sequence[Item]], Sequence[Result]], most: int) -> None:
        """Prepare; nothing is performed yet.

        ``perform`` takes 1 to ``most`` items and returns their results in the same order. It is never called by two
        threads at once, and must not submit by itself. A result may well be an exception that a submitter looks at.
        """
        if most < 1:
            raise InvariantBroken("a batch holds at least one item", most=most)
        self._perform = perform
        self._most = most
        self._changed = threading.Condition()
        self._queue: deque[_Submission[Item, Result]] = deque()  # under ``_changed``
        self._is_performing = False  # under ``_changed``

    def submit(self, item: Item) -> Result:
        """Return the result of ``item``, once a batch with it was performed: by this thread, or by another one.

        Raises what ``perform`` raised for that batch; the batches after it are not concerned.
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
        # Only the first in the queue: so a leader's own item is always in its batch, and no one works for others only.
        return not self._is_performing and bool(self._queue) and self._queue[0] is mine

    def _run(self, batch: Sequence[_Submission[Item, Result]]) -> None:
        """Perform the batch, tell its submitters, and let the next in the queue go on."""
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
        """Take an interrupted submission out of the queue, so that it keeps no one from leading."""
        with self._changed:
            if mine in self._queue:
                self._queue.remove(mine)
            self._changed.notify_all()
