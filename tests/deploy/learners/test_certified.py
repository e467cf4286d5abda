"""A learner whose guarantee is certified, through the commands and as an estimator."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sisa
from coordinator.engine.ledger import read_state
from coordinator.state import FederationState
from shards.learners.certified.learner import CertifiedLinear
from storage.errors import Invalid
from tests.deploy.learners.test_learners import NO_RECIPE
from tests.doubles.user_folder import MARKED, UserFolder, small_points

TEXT = "certified(epsilon=0.5, delta=0.0001)"
ARGUMENTS: dict[str, Any] = {"norm": 20.0, "clip": True, "noise": 0.1, "epsilon": 0.5}


def _specified(home: UserFolder, **changes: object) -> UserFolder:
    model = {"model__learner": "certified_linear", "model__factory": None, "model__arguments": ARGUMENTS}
    return home.fill(small_points(), **NO_RECIPE, **(model | {"model__guarantee": "certified"} | changes))


def _state(home: UserFolder) -> FederationState:
    found = read_state(home.objects)
    assert found is not None
    return found


def test_a_person_is_removed_and_everything_says_how(home: UserFolder) -> None:
    """Status, answers, evaluation, receipt and verification name the guarantee; the budget is stated, rounded up."""
    _specified(home)
    trained = home.json("train")
    assert (trained.code, trained.data["guarantee"]) == (0, TEXT)
    assert home.json("plan").code == 0
    before = _state(home)
    assert home.json("predict", "train.parquet", "--out", "out.csv").data["guarantee"] == TEXT
    assert home.json("evaluate", "train.parquet").data["guarantee"] == TEXT
    assert home.json("erase", "--subject", MARKED, "--request-id", "er-1", "--wait").data["state"] == "complete"
    status = home.json("status").data
    shares = [each["budget_used"] for each in status["constituents"]]
    assert status["guarantee"] == TEXT
    assert all(0 < share <= 1 and share == round(share, 2) for share in shares)
    assert f"guarantee: {TEXT}" in home.run("status").out
    assert "budget used" in home.run("status").out
    envelope = home.json("receipt", "er-1").data["bundle"]["envelope"]
    predicate = json.loads(base64.b64decode(envelope["payload"]))["predicate"]
    home.folder.joinpath("receipt.json").write_text(home.run("receipt", "er-1").out, encoding="utf-8")
    checked = home.run("receipt", "--check", "receipt.json").out
    assert "  guarantee: certified, epsilon 0.5, delta 0.0001; used: 0." in checked
    assert (predicate["guarantee"]["kind"], predicate["guarantee"]["epsilon"]) == ("certified", 0.5)
    assert "depends on who was erased" in predicate["guarantee"]["budget"]
    assert "of one constituent: of several, they add up" in predicate["guarantee"]["budget"]
    assert [each["budget_used"] for each in predicate["shards"]] == [
        shares[each["shard"]] for each in predicate["shards"]
    ]
    changed = [
        (one.chain[0].accounted, other.chain[0].accounted)
        for one, other in zip(before.shards, _state(home).shards, strict=True)
        if one.chain != other.chain
    ]
    assert len(changed) == 1
    verified = home.json("verify")
    assert (verified.code, verified.data["exact"], verified.data["guarantee"]) == (0, False, TEXT)
    for proof in verified.data["shards"]:
        assert proof.keys() == {"shard", "digest", "guarantee", "residual", "accounted", "holds"}
        assert proof["residual"] <= proof["accounted"]
        assert proof["holds"]
    assert f"all constituents are {TEXT}, and nothing is left over" in home.run("verify").out


def test_a_residual_above_the_accounted_one_is_a_failed_proof(
    home: UserFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The constituent answers no longer, and the next training learns it again."""
    _specified(home)
    assert home.run("train").code == 0
    plain = CertifiedLinear.residual
    with monkeypatch.context() as patch:
        patch.setattr(CertifiedLinear, "residual", lambda *given: plain(*given) + 1.0)
        verified = home.json("verify", "--shard", "1")
    assert (verified.code, verified.data["shards"][0]["holds"]) == (3, False)
    assert (
        "a constituent's residual is not what was accounted; no longer answering: shard 1" in verified.error["message"]
    )
    assert home.json("status").data["constituents"][1]["serving_slice"] == 0
    assert home.run("train").code == 0
    with monkeypatch.context() as patch:
        patch.setattr(CertifiedLinear, "residual", lambda *given: plain(*given) + 1.0)
        remedy = home.json("verify", "--shard", "1").error["remedy"]
    assert remedy == "Retraining did not help last time: keep the store as it is and report this."
    assert home.run("train").code == 0
    assert home.json("verify").code == 0


def test_another_promise_is_other_conditions(home: UserFolder) -> None:
    """A smaller epsilon makes a smaller budget: all constituents are learned again."""
    _specified(home)
    assert home.run("train").code == 0
    first = _state(home).configuration
    home.specify(
        **NO_RECIPE,
        model__factory=None,
        model__learner="certified_linear",
        model__guarantee="certified",
        model__arguments=ARGUMENTS | {"epsilon": 0.1},
    )
    assert home.json("train").data["guarantee"] == "certified(epsilon=0.1, delta=0.0001)"
    second = _state(home).configuration
    assert first is not None
    assert second is not None
    assert replace(first, guarantee=None) != first
    assert first.guarantee != second.guarantee
    assert first.profile.library == second.profile.library
    assert (first.profile.library or "").startswith("numpy ")


def test_all_data_points_may_be_erased(home: UserFolder) -> None:
    """Then nothing answers, and nothing is left of anybody."""
    _specified(home, partition__shards=1)
    assert home.run("train").code == 0
    people = sorted(set(small_points()["user_id"]))
    named = [word for person in people for word in ("--subject", str(person))]
    assert home.json("erase", *named, "--request-id", "all", "--wait").data["state"] == "complete"
    assert home.json("status").data["serving"] == 0
    assert home.json("verify").code == 0


@pytest.mark.parametrize(
    ("norm", "problem"),
    [
        (1e-3, "a data point has a feature outside -0.001 .. 0.001, as scaled, which [model] learner does not take"),
        (1.0, "arguments.norm = 1 is below the norm of the features of"),
    ],
)
def test_norms_above_the_declared_one_are_refused(home: UserFolder, norm: float, problem: str) -> None:
    """A single feature with its place before anything is stored; else when it learns, with how many there are."""
    _specified(home, model__arguments={"norm": norm})
    said = home.json("train")
    assert said.code == 2
    assert problem in said.error["message"]
    assert "raise norm, or set clip = true" in said.error["remedy"]


def test_made_up_points_are_within_the_norm(home: UserFolder) -> None:
    """A plan for another number of data points reads none, and a small norm is not in its way."""
    _specified(home, model__arguments={"norm": 1e-3})
    assert home.json("plan", "--points", "500").data["points"] == 500


def test_init_drafts_it(home: UserFolder) -> None:
    """With a norm to declare, and the guarantee asked for."""
    home.write("people.parquet", small_points())
    assert home.run("init", "people.parquet", "--learner", "certified_linear", "--label", "label", "--force").code == 0
    text = home.config.read_text(encoding="utf-8")
    assert 'guarantee = "certified"' in text
    assert home.json("plan").code == 0
    assert home.json("train").data["guarantee"] == "certified(epsilon=1.0, delta=0.0001)"


def test_a_classifier(home: UserFolder) -> None:
    """It has to be asked for by its guarantee, and is opened again from its store."""
    assert home.folder == Path.cwd()
    X_NF = np.random.default_rng(5).uniform(-1, 1, size=(300, 3)).astype(np.float32)
    y_N = np.where(X_NF[:, 0] > 0, "yes", "no")
    settings: dict[str, Any] = {
        "learner": "certified_linear",
        "arguments": {"norm": 2.0, "noise": 0.05},
        "shards": 1,
        "slices": 2,
        "store": "own",
    }
    with pytest.raises(Invalid, match="promises no exact erasure, only a certified one"):
        sisa.Classifier(**settings).fit(X_NF, y_N)
    with sisa.Classifier(**settings, specification={"model": {"guarantee": "certified"}}) as model:
        model.fit(X_NF, y_N, ids=list(range(300)))
        assert model.score(X_NF, y_N) > 0.9
        model.erase(ids=[3])
        verified = model.verify()
        assert (verified.holds, verified.exact) == (True, False)
    with sisa.Classifier(store="own") as again:
        assert again.score(X_NF, y_N) > 0.9
