"""Regenerates the test vectors of docs/receipts: ``python -m tests.golden.regenerate_vectors``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from coordinator.receipts.issuer import Registrar
from coordinator.receipts.openings import commitment
from storage.stores.memory import MemoryStore
from tests.doubles.seeds import CountingSeeds
from tests.doubles.time_and_names import CountingNames, VirtualClock
from tests.golden.regenerate_receipts import EVIDENCE, NOTHING_FOUND, READMITTED, SALT, digest

FILE = Path(__file__).parents[2] / "docs/receipts/vectors.json"
SUBJECTS, IDS = ["ann", " Zürich 数"], ["17"]


def vectors() -> bytes:
    """Return receipts from a log of one, five and eight entries, by fixed keys, and the proofs that join them."""
    store = MemoryStore("receipt-vectors")
    store.forget()
    registrar = Registrar(store, VirtualClock(), CountingNames("vectors"))
    object.__setattr__(registrar.keys, "seeds", CountingSeeds("vectors"))
    opened = commitment(SALT, subjects=SUBJECTS, ids=IDS)
    first, *others = (
        replace(EVIDENCE, request_id=f"erase-{n}", request_digest=digest(f"names {n}"), commitment=opened)
        for n in range(6)
    )
    bundles = [registrar.issue(first), *registrar.issue_all([*others[:2], NOTHING_FOUND, READMITTED])]
    registrar.issue_all(others[2:])
    checks = [registrar.check_log(bundles[index].checkpoint) for index in (0, 1)]
    found = {
        "keys": "# of the vectors\n" + "".join(key.to_text() for key in registrar.public_keys()),
        "salt": SALT,
        "subjects": SUBJECTS,
        "ids": IDS,
        "receipts": [json.loads(bundle.to_bytes()) for bundle in bundles],
        "growth": [
            {"earlier": bundles[index].checkpoint, "checkpoint": check.checkpoint, "consistency": check.consistency}
            for index, check in enumerate(checks)
        ],
    }
    store.forget()
    return (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode()


if __name__ == "__main__":
    FILE.write_bytes(vectors())
