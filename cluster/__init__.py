"""Cluster: everything Ray, and the Python front door.

Knows workers, actors, the pool, Ray's start and end; specifications; federations as Python objects.
May touch: ray (nobody else does), the rooms to the left.
Must not know: the command line, terminals.
Owns the words: worker, federation.

    import cluster
    with cluster.launch("sisa.toml") as federation:
        federation.train()
        federation.erase(subjects=["person-17"])

    federation          a federation as a Python object: launch, connect
    estimators          federations in the manner of scikit-learn that classify, or predict numbers
    clusterer           one that clusters
    client              the HTTP API from Python
    sources             faults in the source data, and rows of erased people that it still holds
    doctor              checks before work starts
    tokens              bearer tokens
    letters/            the letter to the person who asked
    release             which release a process runs, compared at first contact
    config/             specifications
    results/            what the front door returns
    runtime/            Ray itself, nodes, user code
    training/           workers, and ingest by many tasks
    writer/             what the holder of the writer lock does
    ensemble/           constituents that answer together
    coordinator_actor/  the writer that stays
    backups/            backups, made and restored
    sites/              federations of several sites
    serving/            the HTTP API
    experiments/        the laboratory
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Clusters ask for a token, so every process that joins one needs it. Ray reads this variable once, on import; setting
# it later would keep Ray from starting at all.
if "ray" not in sys.modules:
    os.environ.setdefault("RAY_AUTH_MODE", "token")

# Processes on a node keep the folder in which Ray was started there. If it was deleted, MKL cannot load its kernels
# and ends the process when torch is imported.
try:
    Path.cwd()
except FileNotFoundError:
    os.chdir("/")

if TYPE_CHECKING:
    from cluster.federation import Federation, connect, launch

__all__ = ["Federation", "connect", "launch"]


if not TYPE_CHECKING:  # which would take every name for one of these

    def __getattr__(name: str) -> Any:
        # Looked up at first use: importing ``cluster.config.specification`` alone must not load Ray and torch.
        if name in __all__:
            from cluster import federation  # noqa: PLC0415

            return getattr(federation, name)
        raise AttributeError(f"module 'cluster' has no attribute {name!r}")
