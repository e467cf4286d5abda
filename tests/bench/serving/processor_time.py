"""Processor time of the processes of one Ray cluster on this machine, by what they do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_GROUPS: Final = (("ServeReplica", "replica"), ("ProxyActor", "proxy"), ("HAProxy", "proxy"), ("haproxy", "proxy"))


def seconds_of(process: int) -> float:
    """Return the processor time that a process has used; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def cluster_processes(session: str, application: str) -> dict[str, tuple[int, ...]]:
    """Return the processes of the Ray session of this name: the ``application``'s replica, the proxy and all others.

    Replicas of other applications are left out.
    """
    found: dict[str, list[int]] = {"replica": [], "proxy": [], "others": []}
    commands = _commands()
    roots = {process for process, (_, command) in commands.items() if session in command}
    for process, (_, command) in commands.items():
        if process == os.getpid() or not _is_below(process, roots, commands):
            continue
        group = next((group for part, group in _GROUPS if part in command), "others")
        if group == "replica" and application not in command:
            continue
        found[group].append(process)
    return {group: tuple(processes) for group, processes in found.items()}


def _commands() -> dict[int, tuple[int, str]]:
    """Return the parent and the command line of each process."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int(
                    (folder / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[1]
                )
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has ended
                continue
            found[int(folder.name)] = parent, command
    return found


def _is_below(process: int, roots: set[int], commands: dict[int, tuple[int, str]]) -> bool:
    while process in commands:
        if process in roots:
            return True
        process = commands[process][0]
    return False
