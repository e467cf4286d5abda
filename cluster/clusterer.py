"""An estimator in the manner of scikit-learn's ``KMeans``: a federation that clusters, and forgets people.

model = sisa.Clusterer(clusters=8, store="./federation")
model.fit(X, ids=frame.index, subjects=frame.email).predict(X)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cluster.estimators import Estimator


class Clusterer(Estimator):
    """A federation that clusters, with the interface of scikit-learn's ``KMeans``; see ``Classifier``."""

    _type = "clusterer"
    _target = "cluster"

    def __init__(
        self,
        *,
        learner: str = "k_means",
        clusters: int = 8,
        arguments: Mapping[str, Any] | None = None,
        shards: int = 1,
        slices: int = 5,
        store: str | Path | None = "./federation",
        specification: Mapping[str, Any] | None = None,
        verbose: bool = False,
        **settings: Any,
    ) -> None:
        """Declare the federation; nothing is read or written yet. ``clusters``: their number, fewer if necessary.

        ``arguments``: further arguments of the learner. For the other parameters see ``Classifier``.
        """
        self.clusters = clusters
        super().__init__(
            learner=learner,
            arguments=arguments,
            shards=shards,
            slices=slices,
            store=store,
            specification=specification,
            verbose=verbose,
            **settings,
        )

    def fit(self, X: Any, y: Any = None, *, ids: Any = None, subjects: Any = None) -> Self:
        """Train on these data points, or on what changed since the last ``fit``, and return the estimator.

        ``y`` is ignored, as by scikit-learn. For the rest see ``Classifier.fit``.
        """
        del y
        self._train(X, {}, {}, ids=ids, subjects=subjects)
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the nearest cluster of each data point, shape (N,): a row of ``cluster_centers_``."""
        found: npt.NDArray[Any] = self.federation.predict(self._checked(X)).table()["prediction"].to_numpy()
        return found

    def fit_predict(self, X: Any, y: Any = None, *, ids: Any = None, subjects: Any = None) -> npt.NDArray[Any]:
        """Fit, and return the nearest cluster of each of these data points."""
        return self.fit(X, y, ids=ids, subjects=subjects).predict(X)

    @property
    def cluster_centers_(self) -> npt.NDArray[np.float64]:
        """The centroids, shape (K, F). An erasure, or another ``fit``, may change their number and order."""
        return self.federation.centroids()

    def score(self, X: Any, y: Any = None) -> float:
        """Return minus the sum of squared distances from the nearest centroids."""
        del y
        found = self.federation.evaluate(self._checked(X))
        return -found.metrics["inertia"] * found.points

    def _arguments(self) -> dict[str, Any]:
        return super()._arguments() | {"clusters": self.clusters}
