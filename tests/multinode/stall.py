"""An object of a store in a folder whose next reader comes to wait in the middle of reading it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from tests.multinode.patience import until


class Stall:
    """The object, to be read from a pipe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._payload = path.read_bytes()
        self._aside = path.with_name(".aside")
        self._pipe = -1
        os.mkfifo(self._aside)
        self._aside.replace(path)

    def reached(self) -> None:
        """Return once somebody reads."""
        until(self._is_open, "somebody to read the object")

    def mend(self) -> None:
        """Let other readers find the object unchanged; those that are reading already keep waiting."""
        self._aside.write_bytes(self._payload)
        self._aside.replace(self._path)

    def end(self) -> None:
        """Give the waiting readers the object's bytes."""
        os.write(self._pipe, self._payload)
        os.close(self._pipe)

    def _is_open(self) -> bool:
        with suppress(OSError):  # nobody reads yet
            self._pipe = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        return self._pipe >= 0
