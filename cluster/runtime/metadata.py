"""The command lines of the programs that joined a Ray cluster: Ray keeps them as long as its metadata."""

from __future__ import annotations

import shlex
from typing import Any

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled: its types are in no file


def command_lines() -> tuple[str, ...]:
    """Return the command line of every program that ever joined this process's cluster, and of every Ray job."""
    if not ray.is_initialized():
        return ()
    client: Any = GcsClient(address=ray.get_runtime_context().gcs_address)
    jobs = client.get_all_job_info(skip_is_running_tasks_field=True).values()
    return tuple(filter(None, [*(job.entrypoint for job in jobs), *(job.job_info.entrypoint for job in jobs)]))


def words_of(line: str) -> frozenset[str]:
    """Return what may be a name in a command line: its words, and the parts of words after their first ``=``.

    >>> sorted(words_of("sisa erase --subject='Erika Mustermann' x"))
    ['--subject=Erika Mustermann', 'Erika Mustermann', 'erase', 'sisa', 'x']
    """
    try:
        words = shlex.split(line)
    except ValueError:  # an odd number of quotation marks
        words = line.split()
    return frozenset(filter(None, [*words, *(word.partition("=")[2] for word in words)]))
