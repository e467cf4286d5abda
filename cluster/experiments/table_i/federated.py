"""Methods that are learners of a federation: the whole engine erases, and a second federation is the retrain.

Membership is tested on constituents, never on the mean of their answers: a data point's score is that of the
constituent of its own shard, or of the shard where it would be. The product shows no constituent's answers.

Shape legend: N data points, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.experiments.federation import OwnFederation
from cluster.experiments.membership import log_odds
from cluster.experiments.table_i.trial import FIRST, Measured, Repetition, Scores
from shards.learner_kinds.guarantees import Exact
from shards.learner_kinds.kinds import LEARNERS, TORCH, read_arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Federated:
    """A learner of a federation. Implements ``Method``."""

    name: str
    kind: str
    proves: str
    tables: Mapping[str, Mapping[str, Any]]
    """Tables of the specification, by name."""
    is_for_two: bool = False

    @property
    def is_exact(self) -> bool:
        """See ``Method``."""
        return isinstance(self._promise(), Exact)

    def guarantee(self, trial: Repetition) -> str:
        """See ``Method``."""
        del trial
        return str(self._promise())

    def measure(self, trial: Repetition) -> Measured:
        """See ``Method``."""
        with _federation(trial, self.tables, 0) as federation:
            federation.train()
            accuracy_before, before = trial.accuracy(federation.probabilities), _scores(federation, trial)
            storage, digests = federation.checkpoint_bytes, federation.digests
            first = federation.erase(range(FIRST))
            others = federation.erase(range(FIRST, trial.erased))
            with _federation(trial, self.tables, trial.erased) as retrained:
                retrain_seconds = retrained.train().seconds
                retrain_accuracy = trial.accuracy(retrained.probabilities)
                is_equal = federation.digests == retrained.digests
                was_equal = digests == retrained.digests
            return Measured(
                accuracy_before=accuracy_before,
                accuracy_after=trial.accuracy(federation.probabilities),
                retrain_accuracy=retrain_accuracy,
                one_seconds=first.seconds,
                seconds=others.seconds,
                retrain_seconds=retrain_seconds,
                storage_bytes=storage,
                distance=0.0 if is_equal else None,
                distance_before=0.0 if was_equal else None,
                before=before,
                after=_scores(federation, trial),
                note=self._note(is_equal=is_equal),
            )

    def _note(self, *, is_equal: bool) -> str:
        if self.is_exact:
            return "" if is_equal else "the digests differ from those of the retrain"
        return "a retrain draws new noise, so parameters cannot be compared"

    def _promise(self) -> object:
        model = self.tables["model"]
        learner = model.get("learner", TORCH)
        arguments = None if learner == TORCH else read_arguments(learner, model.get("arguments", {}))[0]
        return LEARNERS[learner].promise(arguments)


def _federation(trial: Repetition, tables: Mapping[str, Mapping[str, Any]], first: int) -> OwnFederation:
    """Return a federation of the data points from the row ``first`` on, each with the name that it has among all."""
    return OwnFederation(
        trial.train_NF[first:],
        trial.train_labels_N[first:],
        classes=trial.classes,
        tables=tables,
        rows=np.arange(first, len(trial.train_labels_N)),
    )


def _scores(federation: OwnFederation, trial: Repetition) -> Scores:
    """Return the scores by the constituents: those who were never seen have the names that come after all others."""
    learned = len(trial.train_labels_N)
    return Scores(
        erased_N=_own_scores(federation, range(trial.erased), trial.train_NF, trial.train_labels_N),
        never_N=_own_scores(
            federation, range(learned, learned + len(trial.never_labels_N)), trial.never_NF, trial.never_labels_N
        ),
    )


def _own_scores(
    federation: OwnFederation, names: range, features_NF: npt.NDArray[np.float32], labels_N: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the score of each data point by the constituent of the shard to which its name leads."""
    shards_N = np.array([shard for shard, _ in federation.places(names)])
    found_N = np.empty(len(names))
    for shard in np.unique(shards_N):
        rows = np.flatnonzero(shards_N == shard)
        answers = federation.constituent_probabilities(int(shard), features_NF[rows])
        found_N[rows] = log_odds(answers, labels_N[rows])
    return found_N
