"""Drafts of erasure requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import coordinator.engine.ledger
from cluster.config.specification import read_specification
from cluster.writer.writer import drafted, writer_setup, writing
from coordinator.engine.codec import decode_state
from coordinator.state import FederationState
from tests.doubles.user_folder import UserFolder
from tests.doubles.workers.local_workers import without_ray


def test_a_second_draft_decodes_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand drafts must not decode the state a thousand times; what is accepted meanwhile is known."""
    home = UserFolder(tmp_path).fill()
    decoded: list[object] = []

    def counted(body: Any) -> FederationState:
        decoded.append(body)
        return decode_state(body)

    monkeypatch.setattr(coordinator.engine.ledger, "decode_state", counted)
    setup = writer_setup(read_specification(home.config), listener=lambda _: None)
    with without_ray(), writing(setup, "train") as writer:
        writer.train()
        decoded.clear()
        for number in range(3):  # the journal is short, or empty: the state is in the manifest alone
            drafted(setup, subjects=["secret-person-002"], ids=(), request_id=f"er-{number}", held="")
        assert len(decoded) == 1
        writer.accept(*drafted(setup, subjects=["secret-person-003"], ids=(), request_id="er-9", held=""))
        state = setup.state()
        assert state is not None
        assert [each.request_id for each in state.requests] == ["er-9"]
        writer.settle()
        again = setup.state()
        assert again is not None
        assert again == writer.state
