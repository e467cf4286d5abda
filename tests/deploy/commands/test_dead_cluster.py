"""Commands of a federation whose Ray cluster is gone: reported at once, and nothing that was asked for is lost."""

from __future__ import annotations

import socket

import pytest

import cluster.training.workers
from cluster.runtime.session import join_ray
from tests.doubles.user_folder import MARKED, UserFolder


def test_an_erasure_stays_accepted(trained: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing at the address that "auto" finds, the points are removed, the request waits for its retrain, and the
    next command that finds a cluster carries it out. The salt is in the answer, and opens the receipt.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free.getsockname()[1]}")
    trained.specify(cluster__address="auto")
    with monkeypatch.context() as gone:
        gone.setattr(cluster.training.workers, "join_ray", join_ray)
        said = trained.json("erase", "--subject", MARKED, "--request-id", "er-1")
        assert said.code == 5
        assert said.error["kind"] == "unavailable"
        assert "the Ray cluster does not answer: nothing listens at " in said.error["message"]
        assert "the request stays accepted [request=er-1" in said.error["message"]
        assert said.data["points"] == 4
        assert trained.json("train").code == 5
    assert trained.json("status").data["floor"] > 0
    assert trained.json("train").code == 0
    assert trained.json("status", "er-1").data["state"] == "complete"
    (trained.folder / "receipt.json").write_text(trained.run("receipt", "er-1").out, encoding="utf-8")
    about = ("--salt", said.data["salt"], "--subject", MARKED)
    assert trained.json("receipt", "--check", "receipt.json", *about).data["about_these_names"] is True
