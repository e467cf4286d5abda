"""Predictions for whole files by the sites that take part, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from cluster.config.sites import SitesSpecification
from cluster.results.federation import evaluation_of
from cluster.results.sites import SitesAnswers, SitesEvaluation
from cluster.sites.fan_out import CombinedAnswer, SitesFanOut
from cluster.writer.training_data import asked_of_sites
from coordinator.sites import SiteStanding, answered_together
from shards.data.prediction_files import FeatureBatch, PredictionBatch
from storage.errors import Invalid, Unavailable


class FileAnswering:
    """Answers files, folders, globs and tables; the same sites, at the same generations, answer all batches of one."""

    def __init__(
        self,
        specification: SitesSpecification,
        fan_out: SitesFanOut,
        layout: Callable[[], SiteStanding],
        remark: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``layout`` returns a site's standing, for the features' names; ``remark`` is called with messages."""
        self._specification = specification
        self._fan_out = fan_out
        self._layout = layout
        self._remark = remark

    def predict(self, data: object) -> SitesAnswers:
        """See ``SiteFederation.predict``."""
        first, answers = self._answered(data, labelled=False)
        return SitesAnswers(
            sites=first.sites,
            absent=first.absent,
            target=self._specification.target,
            id_column=self._specification.id_column,
            batches=(PredictionBatch(ids=batch.ids, scores_NS=answer.scores_NS) for batch, answer in answers),
        )

    def evaluate(self, data: object) -> SitesEvaluation:
        """See ``SiteFederation.evaluate``."""
        first, answers = self._answered(data, labelled=True)
        overall = evaluation_of(
            ((batch.labels_N, answer.scores_NS) for batch, answer in answers if batch.labels_N is not None),
            self._specification.target,
            answered_together(first.sites),
        )
        return SitesEvaluation(overall=overall, sites=first.sites, absent=first.absent)

    def _answered(
        self, data: object, *, labelled: bool
    ) -> tuple[CombinedAnswer, Iterator[tuple[FeatureBatch, CombinedAnswer]]]:
        """Return the first answer, and each batch with its answer."""
        layout = self._layout()
        batches = asked_of_sites(
            self._specification.sites[0].specification, layout, data, labelled=labelled, remark=self._remark
        )
        batch = next(batches, None)
        if batch is None:
            raise Invalid("there is no data point to answer", "Name a file that holds some.")
        first = self._fan_out.answer(batch.features_NF, layout.features)
        return first, chain([(batch, first)], self._following(batches, layout.features, first))

    def _following(
        self, batches: Iterator[FeatureBatch], names: tuple[str, ...], first: CombinedAnswer
    ) -> Iterator[tuple[FeatureBatch, CombinedAnswer]]:
        for batch in batches:
            answer = self._fan_out.answer(batch.features_NF, names)
            if answer.sites != first.sites:
                raise Unavailable(
                    "the sites that take part, or their generations, have changed while a file was answered",
                    "Run the command again: the same sites must give all answers for a file.",
                )
            yield batch, answer
