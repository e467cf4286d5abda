"""Real files: no preparation by hand, models as good as a plain loop's, a person erased exactly."""

from __future__ import annotations

from pathlib import Path

import pytest

import cluster.training.workers
from tests.doubles.workers.local_workers import LocalWorkers
from tests.real.cases import PEOPLE, RealCase
from tests.real.measuring import compare
from tests.volume import SISA_VOLUME, one_of_each

_CASES = one_of_each(PEOPLE, kind=lambda case: (case.path, case.metric))


@pytest.mark.volume
@pytest.mark.parametrize("case", _CASES, ids=lambda case: case.name)
def test_from_a_file_to_a_verified_erasure(case: RealCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The draft, with a user's few changes, trains a model whose figure is within 2 % of the plain loop's and better
    than a constant answer's; a person is erased, exactly, without residue, and with a receipt.
    """
    monkeypatch.setattr(cluster.training.workers, "RayPool", LocalWorkers)
    monkeypatch.setattr(cluster.training.workers, "join_ray", lambda _: False)
    monkeypatch.chdir(tmp_path)
    found = compare(case, every=1 if SISA_VOLUME == "all" else case.every)
    assert found.ours == pytest.approx(found.plain, rel=0.02)
    gain = found.trivial - found.ours if case.metric == "rmse" else found.ours - found.trivial
    assert gain > 0 or not case.is_predictable
    assert (found.exact, found.found) == (True, 0)
    assert found.erased >= 1
    assert 0 < found.share < 1.1
