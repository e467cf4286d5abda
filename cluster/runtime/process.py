"""This process: how it ends, what it leaves behind, and messages during long waits. Imports none of our modules."""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def reporting_wait(tell: Callable[[str], None], what: str, each_seconds: float = 20.0) -> Iterator[None]:
    """While the block runs, say every ``each_seconds`` what it waits for, and for how long it has."""
    is_over = threading.Event()

    def tell_on() -> None:
        waited_seconds = 0.0
        while not is_over.wait(each_seconds):
            waited_seconds += each_seconds
            tell(f"{what}; {waited_seconds:g} seconds now")

    teller = threading.Thread(target=tell_on, name="sisa-waiting", daemon=True)
    teller.start()
    try:
        yield
    finally:
        is_over.set()
        teller.join()


def leave_no_core() -> None:
    """Keep a crash of this process, or of one that it starts, from writing its memory to a disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextmanager
def own_termination() -> Iterator[None]:
    """Keep this process's own handler of SIGTERM, if it has one, where the block sets another.

    Ray's handlers end Ray before the process, whose threads then abort it with a core dump. A SIGTERM during the block
    may end in their ``SystemExit``: it is delivered again, to the handler of this process.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        yield
    except SystemExit:
        signal.signal(signal.SIGTERM, handler)
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)
