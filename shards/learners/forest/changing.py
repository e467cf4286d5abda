"""How trees change with their data points: into the trees that would grow from the remaining points.

Only nodes with a changed point are visited, the nodes of a level together. The counts of their candidates are
corrected. A node's rows are looked at where it keeps no candidates, a pivot left, an attribute no longer separates or
new points may make another one separate; what is below is grown again where another split is now the best one.
Shape legend: J nodes, K thresholds.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from shards.learners.fixed_point import Integers
from shards.learners.forest.choosing import Candidates, Chooser
from shards.learners.forest.growing import grown
from shards.learners.forest.nodes import ROOT, Nodes, join_nodes, node_names
from shards.learners.forest.rows import Places, Rows


class Remaining(Protocol):
    """The rows that are left, which are read when they are first needed."""

    @property
    def rows(self) -> Rows:
        """All of them."""
        ...

    def of_tree(self, tree: int, at: Integers) -> Integers:
        """Return those of these positions that the tree has."""
        ...


class ForestChange:
    """One change of some trees. ``gone`` and ``new`` are the roots of these trees, with the rows that change."""

    def __init__(self, chooser: Chooser, was: Nodes, left: Remaining) -> None:
        self._chooser = chooser
        self._was = was
        self._names_M = was.names
        self._candidates_M = was.candidates(np.arange(len(was)))
        self._left = left
        self._rows: dict[tuple[int, int], Integers] = {}
        """Rows of nodes, by tree and path, as far as they are known."""
        self._columns: dict[int, npt.NDArray[np.float32]] = {}
        self._splits: dict[tuple[int, int], tuple[int, np.float32]] = {}
        """Attribute and threshold of the visited nodes that are split now."""

    def changed(self, gone_rows: Rows, gone: Places, new_rows: Rows, new: Places) -> Nodes:
        """Return all nodes after the change."""
        visited, cut, found = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)], []
        while len(gone):
            at_J = np.searchsorted(self._names_M, node_names(gone.trees_J, gone.paths_J))
            nodes = self._now(at_J, gone_rows, gone, new_rows, new)
            was = self._was
            is_split_J, was_split_J = nodes.attribute_M >= 0, was.attribute_M[at_J] >= 0
            same_J = is_split_J & (nodes.attribute_M == was.attribute_M[at_J])
            same_J &= nodes.threshold_M == was.threshold_M[at_J]
            visited.append(at_J)
            cut.append(at_J[was_split_J & ~same_J])
            found.append(nodes)
            self._remember(nodes)
            if (other_J := is_split_J & ~same_J).any():
                rows, places = self._places(gone.take(other_J))
                found.append(grown(self._chooser, rows, places.children(rows, nodes.take(np.flatnonzero(other_J)))))
            stay = nodes.take(np.flatnonzero(same_J))
            gone, new = (each.take(same_J).children(rows, stay) for rows, each in ((gone_rows, gone), (new_rows, new)))
            differs_J = (gone.sizes_J > 0) | (new.sizes_J > 0)
            gone, new = gone.take(differs_J), new.take(differs_J)
        if not found:
            return self._was
        replaced = np.concatenate([*visited, self._was.below(np.concatenate(cut))])
        return self._was.replaced(np.unique(replaced), join_nodes(found))

    def _now(self, at_J: Integers, gone_rows: Rows, gone: Places, new_rows: Rows, new: Places) -> Nodes:
        """Return the nodes as they are now."""
        chooser, was = self._chooser, self._was
        chooser.looked_at[0] += len(gone.at_R) + len(new.at_R)
        stats_JS = was.stats_MS[at_J].astype(np.int64) - chooser.stats(gone_rows, gone) + chooser.stats(new_rows, new)
        may_J = chooser.may_split(gone.paths_J, stats_JS)
        fits_J = may_J & was.kept_M[at_J]
        if chooser.has_pivots:
            last_J = np.zeros(len(gone), dtype=np.uint64)
            last_J[fits_J] = was.last_I[self._candidates_M[at_J[fits_J]]]
            for rows, places in ((gone_rows, gone), (new_rows, new)):
                node_R = places.owners
                fits_J[node_R[chooser.pivot_draws(rows, places) <= last_J[node_R]]] = False
        skipped_J = np.zeros(len(gone), dtype=np.bool_)
        skipped_J[fits_J] = was.skipped_I[self._candidates_M[at_J[fits_J]]]
        fits_J &= ~(skipped_J & (new.sizes_J > 0))  # new points may let an attribute separate that was passed over
        candidates, fits_J = self._corrected(at_J, fits_J, stats_JS, gone_rows, gone, new_rows, new)
        look_J = may_J & ~fits_J
        parts = [
            chooser.leaves(gone.take(~may_J), stats_JS[~may_J]),
            chooser.chosen(gone.take(fits_J), stats_JS[fits_J], candidates),
        ]
        if look_J.any():
            parts.append(chooser.choose(*self._places(gone.take(look_J))))
        return join_nodes(parts)

    def _corrected(
        self,
        at_J: Integers,
        fits_J: npt.NDArray[np.bool_],
        stats_JS: Integers,
        gone_rows: Rows,
        gone: Places,
        new_rows: Rows,
        new: Places,
    ) -> tuple[Candidates, npt.NDArray[np.bool_]]:
        """Return the corrected candidates of nodes that may keep theirs, and which of the nodes do."""
        chooser, was = self._chooser, self._was
        kept = self._candidates_M[at_J[fits_J]]
        attributes, thresholds = was.attributes_IP[kept], was.thresholds_IPK[kept]
        left = was.left_IPKS[kept].astype(np.int64)
        for rows, places, sign in ((gone_rows, gone, -1), (new_rows, new, 1)):
            if len(places.at_R):
                left += sign * chooser.left(rows, places.take(fits_J), attributes, thresholds)
        used = attributes >= 0
        left[~used] = 0
        # Where one no longer separates, another attribute moves up.
        separate: npt.NDArray[np.bool_] = np.all(chooser.separates(stats_JS[fits_J], left).any(axis=2) | ~used, axis=1)
        candidates = Candidates(attributes, thresholds, left, was.last_I[kept], was.skipped_I[kept])
        still_J = fits_J.copy()
        still_J[fits_J] = separate
        return candidates.take(separate), still_J

    def _remember(self, nodes: Nodes) -> None:
        columns = nodes.trees_M.tolist(), nodes.paths_M.tolist(), nodes.attribute_M.tolist(), nodes.threshold_M
        for tree, path, attribute, threshold in zip(*columns, strict=True):
            if attribute >= 0:
                self._splits[tree, path] = attribute, threshold

    def _places(self, places: Places) -> tuple[Rows, Places]:
        """Return the nodes with all rows that are left."""
        at = [
            self._rows_of(tree, path)
            for tree, path in zip(places.trees_J.tolist(), places.paths_J.tolist(), strict=True)
        ]
        return self._left.rows, Places.of(places.trees_J, places.paths_J, at, places.boxes)

    def _rows_of(self, tree: int, path: int) -> Integers:
        """Return the node's rows, which the nodes above it, changed by now, pass down to it."""
        rows, missing = self._left.rows, []
        while path != ROOT and (tree, path) not in self._rows:
            missing.append(path)
            path >>= 1
        splits = [(*self._splits[tree, below >> 1], below % 2 == 0) for below in reversed(missing)]
        if path == ROOT:
            goes_N = np.ones(len(rows), dtype=np.bool_)
            for attribute, threshold, is_left in splits:
                goes_N &= (self._column(rows, attribute) <= threshold) == is_left
            found = self._left.of_tree(tree, np.flatnonzero(goes_N))
        else:
            found = self._rows[tree, path]
            for attribute, threshold, is_left in splits:
                found = found[(rows.features_NF[found, attribute] <= threshold) == is_left]
        self._rows[tree, missing[0] if missing else path] = found
        return found

    def _column(self, rows: Rows, attribute: int) -> npt.NDArray[np.float32]:
        """Return a feature of all rows as a contiguous array, which is compared faster than a column of rows."""
        if attribute not in self._columns:
            self._columns[attribute] = np.ascontiguousarray(rows.features_NF[:, attribute])
        return self._columns[attribute]
