"""Programs of users: each value has the type that the guide says, and what is wrong in them is reported.

An ignored error that is not one is an error to mypy: so each ``type: ignore`` here says that mypy finds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import assert_type

import cluster
import sisa
from cluster.results.federation import Answers, ErasureAnswer, Evaluation, SubjectFound, Verification
from coordinator.status import FederationStatus, RequestStatus


def a_federation(config: Path, tables: Mapping[str, object]) -> None:
    """The whole story in one process."""
    assert_type(sisa.connect(tables), sisa.Federation)
    assert_type(cluster.launch(str(config)), cluster.Federation)
    with sisa.launch(config) as federation:
        assert_type(federation, sisa.Federation)
        assert_type(federation.train(), FederationStatus)
        assert_type(federation.predict("new.parquet"), Answers)
        assert_type(federation.evaluate("test.parquet"), Evaluation)
        erased = federation.erase(subjects=["person-17", 4], request_id="er-1")
        assert_type(erased, ErasureAnswer)
        assert_type(erased.points, int)
        assert_type(federation.lookup(["person-17"]), tuple[SubjectFound, ...])
        assert_type(federation.status().requests, tuple[RequestStatus, ...])
        assert_type(federation.verify(shards=[0]), Verification)


def a_specification() -> None:
    """A specification without a file: settings by keyword, the rest at its defaults."""
    specification = sisa.Specification(
        name="people",
        store="./federation",
        data=sisa.DataSettings(train="people.csv", id="id", label="plan", features=("x*",), classes=("a", "b")),
        training=sisa.TrainingSettings(epochs=5, batch_size=16, learning_rate=0.05),
        partition=sisa.PartitionSettings(shards=2, slices=2),
        erasure=sisa.ErasureSettings(batch="until_due"),
    )
    assert_type(specification.data, sisa.DataSettings)
    assert_type(specification.model, sisa.ModelSettings)
    assert_type(specification.cluster, sisa.ClusterSettings)
    assert_type(specification.aggregation, sisa.AggregationSettings)
    assert_type(specification.receipts, sisa.ReceiptSettings)
    assert_type(specification.serve, sisa.ServeSettings)
    assert_type(sisa.connect(specification), sisa.Federation)
    assert_type(sisa.launch({"name": "people", "data": specification.data}), sisa.Federation)


def an_estimator(features: Sequence[Sequence[float]], labels: Sequence[str]) -> None:
    """The same with data in memory."""
    with sisa.Classifier(shards=2, store=None, epochs=3) as model:
        assert_type(model, sisa.Classifier)
        assert_type(model.fit(features, labels, subjects=labels), sisa.Classifier)
        assert_type(model.score(features, labels), float)
        assert_type(model.erase(subjects=["person-17"]), ErasureAnswer)
        assert_type(model.verify(), Verification)


def a_client(url: str) -> None:
    """The same over HTTP."""
    with sisa.Client(url, "token", timeout_seconds=5) as client:
        assert_type(client, sisa.Client)
        erased = client.erase(ids=["p1"], wait_seconds=60)
        assert_type(erased, ErasureAnswer)
        assert_type(client.follow(erased, 60), Iterator[RequestStatus])
        assert_type(client.receipt(erased.request_id), bytes)
        assert_type(client.status(), FederationStatus)
        assert_type(client.is_healthy(), bool)


def mistakes(federation: sisa.Federation, client: sisa.Client) -> None:
    """What a checker reports before it fails in production."""
    sisa.lunch()  # type: ignore[attr-defined]
    cluster.lunch()  # type: ignore[attr-defined]
    sisa.Specification(name="people", store="./federation")  # type: ignore[call-arg]
    sisa.TrainingSettings(epochs="5", batch_size=16, learning_rate=0.05)  # type: ignore[arg-type]
    sisa.ErasureSettings(batch="never")  # type: ignore[arg-type]
    sisa.connect(17)  # type: ignore[arg-type]
    federation.erase(["person-17"])  # type: ignore[call-arg]
    federation.erase(subject=["person-17"])  # type: ignore[call-arg]
    federation.verify(shards="0")  # type: ignore[arg-type]
    client.erase(subjects=17)  # type: ignore[arg-type]
    sisa.Client()  # type: ignore[call-arg]
