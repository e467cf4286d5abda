"""Write the golden files anew: ``python -m tests.golden.regenerate``.

A difference that this makes is a change of a stored format: raise ``format_version`` and keep reading the old one.
"""

from __future__ import annotations

from pathlib import Path

from storage.manifest import Manifest
from storage.sealed import seal

FOLDER = Path(__file__).parent / "storage"

MANIFEST = Manifest(
    number=41,
    token=7,
    nonce="00112233445566778899aabbccddeeff",
    body={
        "empty": {},
        "escapes": 'quote " backslash \\ tab \t Zürich 数',
        "false": False,
        "floor": 3,
        "large": 9007199254740991,
        "list": [1, -2, 0.5, 1e-07, 0.1],
        "none": None,
        "true": True,
    },
)

GOLDEN: dict[str, bytes] = {
    "manifest-v1.json": MANIFEST.to_bytes(),
    "floor-v1.json": seal({"floor": 40}),
    "token-v1.json": seal({"token": 7}),
}


def regenerate() -> None:
    """Write every golden file."""
    FOLDER.mkdir(exist_ok=True)
    for name, payload in GOLDEN.items():
        (FOLDER / name).write_bytes(payload)


if __name__ == "__main__":
    regenerate()
