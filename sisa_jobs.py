"""The command ``sisa-erase-job``: ``deploy.jobs.erase_job``, whatever packages the job's working folder holds.

Ray puts a job's working folder first on Python's path, and ``python -m`` the current folder: a package ``deploy`` there
would be taken for ours. So ours are imported from beside this file before anything else is.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn


def erase() -> NoReturn:
    """Submit an erasure request to the federation's coordinator; see ``deploy.jobs.erase_job``."""
    _import_rooms()
    from deploy.jobs.erase_job import main  # noqa: PLC0415  of ours only from here on

    main()


def _import_rooms() -> None:
    home = str(Path(__file__).resolve().parent)
    sys.path.insert(0, home)
    try:
        for room in ("storage", "shards", "coordinator", "cluster", "deploy"):
            import_module(room)  # their modules are looked for in their own folders from now on
    finally:
        sys.path.remove(home)


if __name__ == "__main__":
    erase()
