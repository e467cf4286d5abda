"""A constituent that verify finds wrong stops answering, is retrained, and is recorded as wrong."""

from __future__ import annotations

import pytest

import shards.learners.torch.learner
from tests.doubles.user_folder import MARKED, UserFolder

HOLDOUT = "train.parquet"


@pytest.fixture
def erased(trained: UserFolder) -> UserFolder:
    """A federation that has erased somebody, whose shard's constituent has a receipt."""
    assert trained.json("erase", "--subject", MARKED, "--request-id", "er-1").code == 0
    return trained


def other_results(patch: pytest.MonkeyPatch) -> None:
    """From here on training gives other bytes, as a model does that depends on its process."""
    patch.setattr(shards.learners.torch.learner, "SHUFFLE", b"other")


def test_it_answers_no_longer_and_is_trained_anew(erased: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Durably out of service the moment that verify says no; sisa train repairs it, and verify holds again."""
    before = erased.json("status").data
    with monkeypatch.context() as patch:
        other_results(patch)
        said = erased.json("verify", "--shard", "1")
        assert said.code == 3
        assert said.error["message"] == "a constituent is not byte-equal; no longer answering: shard 1"
        assert said.error["remedy"].startswith("Run 'sisa train', which retrains what is wrong")
        (proof,) = said.data["shards"]
        assert (proof["exact"], proof["again"], proof["refutation"]["slice"]) == (False, False, 1)
        after = erased.json("status").data
        assert (after["generation"], after["floor"]) == (before["generation"] + 1, before["generation"] + 1)
        assert [each["serving_slice"] for each in after["constituents"]] == [2, 0, 2]
        assert erased.json("evaluate", HOLDOUT).data["constituents"] == 2
        assert erased.json("train").code == 0
        assert erased.json("verify", "--shard", "1").code == 0
        assert erased.json("evaluate", HOLDOUT).data["constituents"] == 3


def test_its_receipts_say_what_was_found(erased: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signed statement names both digests and the erasures whose receipts are about this shard."""
    (shard,) = erased.json("status", "er-1").data["shards"]
    was = erased.json("status").data["constituents"][shard]["slice_digests"][0]
    with monkeypatch.context() as patch:
        other_results(patch)
        erased.json("verify", "--shard", str(shard))
        erased.json("train")
        statement = erased.run("receipt", f"refuted-shard-{shard}-{was[:16]}")
        assert f"constituent found wrong: refuted-shard-{shard}-{was[:16]}" in statement.err
        assert f"  constituent {was}" in statement.err
        assert "receipts about this shard: er-1" in statement.err
        verified = erased.json("verify", "--shard", str(shard))
        assert (verified.code, verified.data["receipts"]["checked"]) == (0, 2)


def test_training_again_is_not_advised_twice(erased: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """If retraining yields other bytes once more, the remedy names the model as the cause, and not another training."""
    with monkeypatch.context() as patch:
        other_results(patch)
        assert erased.json("verify", "--shard", "1").code == 3
        assert erased.json("train").code == 0
    again = erased.json("verify", "--shard", "1")
    assert again.code == 3
    assert again.data["shards"][0]["again"]
    assert "the model's result depends on the process that trains it" in again.error["remedy"]
    assert "sisa train" not in again.error["remedy"]


def test_what_was_replaced_meanwhile_is_not_taken_for_it(erased: UserFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right constituents stay in service: verify takes out what differs and nothing else."""
    before = erased.json("status").data
    assert erased.json("verify").code == 0
    after = erased.json("status").data
    assert (after["generation"], after["constituents"]) == (before["generation"], before["constituents"])


def test_a_foreign_file_is_not_for_training_to_mend(erased: UserFolder) -> None:
    """The remedy fits the finding."""
    (erased.store / "shards" / "Note To Self.txt").write_text("mine")
    said = erased.json("verify")
    assert said.code == 3
    assert said.error["remedy"] == "Move files that sisa-ray did not write out of the store: no command touches them."


@pytest.mark.parametrize("command", [("erase",), ("readmit", "--reason", "a new contract")])
def test_its_ids_are_nobody_elses(erased: UserFolder, command: tuple[str, ...]) -> None:
    """A request cannot take the id under which a constituent would be stated wrong."""
    digest = erased.json("status").data["constituents"][1]["slice_digests"][0]
    said = erased.refused(*command, "--subject", MARKED, "--request-id", f"refuted-shard-1-{digest[:16]}")
    assert "are those of statements about constituents found wrong" in said.error["message"]
