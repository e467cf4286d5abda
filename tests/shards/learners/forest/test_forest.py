"""The keyed forest: as good as scikit-learn's, and exact to the byte after any change of its points."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.metrics import r2_score, roc_auc_score

from shards.learner_kinds.forest import ForestArguments
from shards.learners.forest.choosing import Chooser
from shards.learners.forest.learner import Forest, Grown
from shards.learners.forest.nodes import NAMES, ROOT, node_names
from shards.learners.forest.rows import Places, Rows
from shards.learners.protocol import answering_from
from shards.learners.tensors import encode_arrays
from shards.points import ShardPoints
from storage.errors import Corrupt
from tests.doubles.lineages import lineage_of
from tests.shards.learners.direct import SHARD, chosen, learned, moved, points_of
from tests.volume import spread


def _forest(
    arguments: ForestArguments, inputs: int, outputs: int = 2, target: str = "class", seed: int = 0, keeps_from: int = 0
) -> Forest:
    return Forest(arguments, inputs, outputs, target, seed, keeps_from=keeps_from)


def _random_case(number: int) -> tuple[Forest, ShardPoints]:
    """Return a random forest and points, few enough for every kind of node to occur."""
    generator = np.random.default_rng(number)
    count, inputs, outputs = (int(generator.integers(*ends)) for ends in ((1, 60), (1, 6), (2, 4)))
    features_NF = generator.normal(size=(count, inputs))
    if generator.random() < 0.5:
        features_NF = np.round(features_NF)
    is_class = generator.random() < 0.7
    labels = generator.integers(outputs, size=count) if is_class else generator.normal(size=(count, outputs))
    keys_N = generator.integers(2**63, size=count).astype(np.uint64)
    arguments = ForestArguments(
        trees=3,
        depth=int(generator.integers(1, 6)),
        min_leaf=int(generator.integers(1, 4)),
        candidates=int(generator.integers(1, 6)),
        attributes=int(generator.integers(0, 4)),
        thresholds=str(generator.choice(["pivot", "box"])),
        low=-3.0,
        high=3.0,
        share=float(generator.choice([1.0, 0.5])),
    )
    target, seed, keeps_from = (
        "class" if is_class else "number",
        int(generator.integers(5)),
        (0, 8, 20, 256)[number % 4],
    )
    forest = _forest(arguments, inputs, outputs, target, seed, keeps_from)
    return forest, points_of(features_NF, labels, keys_N, keys_N >> np.uint64(60))


def _changes(number: int, count: int) -> list[npt.NDArray[np.bool_]]:
    """Return which points there are, at first and after each of three changes: many or few, coming and going."""
    generator = np.random.default_rng(number)
    present = [generator.random(count) < 0.8]
    for _ in range(3):
        flips = generator.random(count) < generator.choice([0.03, 0.2, 0.6])
        present.append(present[-1] & ~flips if generator.random() < 0.5 else present[-1] ^ flips)
    return present


@pytest.mark.volume
@pytest.mark.parametrize("number", spread(range(10_000), 150))
def test_any_change_ends_in_the_bytes_of_a_new_forest(number: int) -> None:
    """This includes changes where all points leave, where trees are empty, and where points come back."""
    forest, every = _random_case(number)
    present = [*_changes(number, len(every.keys_N)), np.zeros(len(every.keys_N), dtype=bool)]
    state = learned(forest, chosen(every, present[0]))
    for was, now in itertools.pairwise(present):
        state = moved(forest, state, every, was, now)
        assert forest.digest(state) == forest.digest(learned(forest, chosen(every, now)))
    assert forest.digest(state) == forest.digest(forest.initial(SHARD))


def _few(arguments: dict[str, Any], rows: list[int], seed: int) -> tuple[Forest, ShardPoints, Grown]:
    forest = _forest(ForestArguments(trees=1, depth=1, min_leaf=1, **arguments), 1, seed=seed)
    every = points_of(np.array([[0], [1], [2], [3]]), [0, 1, 0, 1])
    return forest, every, learned(forest, chosen(every, np.array(rows)))


@pytest.mark.parametrize("candidates", [1, 3])
def test_no_value_of_somebody_erased_stays_a_threshold(candidates: int) -> None:
    """DaRE keeps the erased point's own value as a threshold in 258 of 400 trees over these four points."""
    for seed in range(100):
        forest, every, state = _few({"candidates": candidates}, [0, 1, 2, 3], seed)
        stays = np.array([True, False, True, True])
        state = moved(forest, state, every, np.ones(4, dtype=bool), stays)
        thresholds = np.concatenate([state.nodes.threshold_M, state.nodes.thresholds_IPK.ravel()])
        assert 1.0 not in thresholds


def test_candidates_that_an_erasure_makes_possible_are_offered() -> None:
    """DaRE never offers the new neighbours of an erased point; here every seed ends as a new forest does."""
    splits = set()
    for seed in range(60):
        forest, every, state = _few({"candidates": 1}, [0, 1, 2, 3], seed)
        stays = np.array([True, False, True, True])
        state = moved(forest, state, every, np.ones(4, dtype=bool), stays)
        fresh = _few({"candidates": 1}, [0, 2, 3], seed)[2]
        assert forest.digest(state) == forest.digest(fresh)
        splits.add(float(state.nodes.threshold_M[0]))
    assert {0.0, 2.0} <= splits


def test_the_order_of_erasures_leaves_no_trace() -> None:
    """One after another in either direction, and all at once."""
    generator = np.random.default_rng(3)
    every = points_of(generator.normal(size=(80, 4)), generator.integers(2, size=80))
    forest = _forest(ForestArguments(trees=4, min_leaf=2), 4)
    ends = set()
    for order in ([7, 31, 55, 60], [60, 55, 31, 7], [[7, 60], [31, 55]], [[7, 31, 55, 60]]):
        present = np.ones(80, dtype=bool)
        state = learned(forest, every)
        for each in order:
            after = present.copy()
            after[each] = False
            state, present = moved(forest, state, every, present, after), after
        ends.add(forest.digest(state))
    assert len(ends) == 1


def test_thresholds_of_a_box_are_values_of_nobody() -> None:
    """With thresholds = "box" no feature of a data point is in the checkpoint's thresholds."""
    generator = np.random.default_rng(4)
    features_NF = generator.normal(size=(300, 5)).astype(np.float32)
    arguments = ForestArguments(trees=10, thresholds="box", low=-4.0, high=4.0)
    state = learned(_forest(arguments, 5), points_of(features_NF, features_NF[:, 0] > 0))
    values = np.concatenate([state.nodes.threshold_M, state.nodes.thresholds_IPK.ravel()])
    assert not np.isin(values, features_NF).any()


def test_a_threshold_of_zero_has_no_sign() -> None:
    """Which of 0 and minus 0 a sort puts first differs between machines."""
    features_NF = np.array([[-0.0], [-0.0], [0.0], [1.0]])
    every = points_of(features_NF, [0, 0, 0, 1])
    state = learned(_forest(ForestArguments(trees=5, min_leaf=1), 1), every)
    thresholds = state.nodes.thresholds_IPK
    assert (thresholds == 0).any()
    assert not np.signbit(thresholds[thresholds == 0]).any()


def test_sums_of_millions_of_the_largest_labels_are_exact() -> None:
    """An erasure subtracts from them exactly, so they must not be rounded when they are added up."""
    count = 5_000_000
    labels_N = np.full((count, 1), 2**31 - 1, dtype=np.int64)
    rows = Rows(np.zeros((count, 1), dtype=np.float32), labels_N, np.zeros(count, dtype=np.uint64))
    chooser = Chooser(arguments=ForestArguments(), material=b"", inputs=1, classes=0, outputs=1)
    root = Places.roots(np.zeros(1), [np.arange(count)], None)
    left_JWKS = chooser.left(rows, root, np.zeros((1, 1), dtype=np.int32), np.zeros((1, 1, 1), dtype=np.float32))
    assert left_JWKS.tolist() == [[[[count, count * (2**31 - 1)]]]]
    assert chooser.stats(rows, root).tolist() == [[count, count * (2**31 - 1)]]


def test_the_deepest_nodes_of_the_last_tree_have_names_of_their_own() -> None:
    """The order of names is that of trees and, in a tree, of paths."""
    most = ForestArguments(trees=10_000, depth=48)
    assert not most.problems()
    names = node_names(np.array([0, 0, 9_999, 9_999]), np.array([ROOT, 2**49 - 1, ROOT, 2**49 - 1]))
    assert (names[1:] > names[:-1]).all()
    assert names[0] > 0


def test_a_chain_of_nodes_as_deep_as_allowed_is_grown_and_cut_off() -> None:
    """Rows double, so that each split takes one of them; without the largest ones the tree is shorter."""
    every = points_of(2.0 ** np.arange(60)[:, None], np.arange(60) % 2)
    forest = _forest(ForestArguments(trees=2, depth=48, min_leaf=1, candidates=60), 1)
    state, stays = learned(forest, every), np.arange(60) < 20
    assert state.nodes.paths_M.max() >> 10
    after = moved(forest, state, every, np.ones(60, dtype=bool), stays)
    assert forest.digest(after) == forest.digest(learned(forest, chosen(every, stays)))


def test_answers_need_no_candidates() -> None:
    """What is opened for answers is a part of the checkpoint, and gives the same."""
    generator = np.random.default_rng(9)
    features_NF = generator.normal(size=(600, 4)).astype(np.float32)
    forest = _forest(ForestArguments(trees=5), 4)
    state = learned(forest, points_of(features_NF, generator.integers(2, size=600)))
    less = answering_from(forest, forest.to_bytes(state, lineage_of(1)), SHARD)
    sizes = [sum(getattr(each.nodes, name).nbytes for name in NAMES) for each in (less, state)]
    assert sizes[0] < sizes[1] / 3
    assert np.array_equal(forest.probabilities(less, features_NF), forest.probabilities(state, features_NF))


def test_a_share_is_taken_as_it_is_written() -> None:
    """0.07 times 100 is a bit more than 7 in binary fractions."""
    assert ForestArguments(trees=100, share=0.07).trees_each == 7
    assert ForestArguments(trees=3, share=0.4).trees_each == 2
    assert ForestArguments(trees=7, share=1.0).trees_each == 7


_Arrays = dict[str, npt.NDArray[Any]]


def _damaged() -> Iterator[tuple[str, Callable[[_Arrays], _Arrays]]]:
    def other(name: str, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Callable[[_Arrays], _Arrays]:
        return lambda arrays: arrays | {name: change(arrays[name])}

    def without(name: str) -> Callable[[_Arrays], _Arrays]:
        return lambda arrays: {each: array for each, array in arrays.items() if each != name}

    def first(value: int) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
        return lambda array: np.concatenate([np.full_like(array[:1], value), array[1:]])

    for name in (*sorted(set(NAMES) - {"trees_M", "kept_M"}), "nodes"):
        yield f"no {name}", without(name)
        yield f"short {name}", other(name, lambda array: array[:-1])
        yield f"other {name}", other(name, lambda array: array.astype(np.float64))
    for name in ("thresholds_IPK", "left_IPKS", "stats_MS"):
        yield f"narrow {name}", other(name, lambda array: array[..., :-1])
    for name, value in (("attribute_M", 9), ("attribute_M", -1), ("attributes_IP", 9), ("paths_M", 5), ("nodes", 0)):
        yield f"{name} {value}", other(name, first(value))
    yield "fewer counts", other("stats_MS", np.ones_like)
    yield "turned", other("nodes", lambda array: array[::-1].copy())


@pytest.mark.parametrize("damage", dict(_damaged()).values(), ids=dict(_damaged()).keys())
def test_a_damaged_checkpoint_is_refused(damage: Callable[[_Arrays], _Arrays]) -> None:
    """Its digest is checked before; nothing that passes may fail later."""
    generator = np.random.default_rng(2)
    forest = _forest(ForestArguments(trees=3, min_leaf=2, candidates=3), 4, keeps_from=10)
    state = learned(forest, points_of(generator.normal(size=(60, 4)), generator.integers(2, size=60)))
    arrays = {name: array.copy() for name, array in forest.arrays(state).items()}
    assert forest.digest(forest.from_bytes(encode_arrays(arrays, lineage_of(1)), SHARD)) == forest.digest(state)
    with pytest.raises(Corrupt, match="are not those of this forest"):
        forest.from_bytes(encode_arrays(damage(arrays), lineage_of(1)), SHARD)


def test_a_subject_is_in_a_share_of_the_trees() -> None:
    """With share = 0.2 each subject changes two of ten trees, however many points it has."""
    generator = np.random.default_rng(6)
    subjects_N = np.arange(200, dtype=np.uint64) // np.uint64(5) * np.uint64(0x9E3779B97F4A7C15)
    every = points_of(generator.normal(size=(200, 3)), generator.integers(2, size=200), subjects_N=subjects_N)
    forest = _forest(ForestArguments(trees=10, share=0.2, min_leaf=1), 3)
    state = learned(forest, every)

    def roots(grown: Grown) -> npt.NDArray[np.int64]:
        return np.asarray(grown.nodes.stats_MS[grown.nodes.paths_M == ROOT].sum(axis=1))

    assert roots(state).sum() == 2 * 200
    for subject in subjects_N[::25]:
        after = moved(forest, state, every, np.ones(200, dtype=bool), subjects_N != subject)
        assert (roots(state) != roots(after)).sum() == 2


_TRAIN: Final = 1500


def _made_up() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    generator = np.random.default_rng(8)
    features_NF = generator.uniform(-1, 1, size=(2 * _TRAIN, 8)).astype(np.float32)
    signal_N = features_NF[:, 0] + features_NF[:, 1] * features_NF[:, 2] * 2 + 0.5 * (features_NF[:, 3] > 0.2)
    return features_NF, signal_N + generator.normal(scale=0.5, size=2 * _TRAIN)


@pytest.mark.parametrize("thresholds", ["pivot", "box"])
def test_it_is_as_good_as_scikit_learns_forest(thresholds: str) -> None:
    """On made-up data the area under the curve is within 0.015, and R² within 0.03."""
    features_NF, signal_N = _made_up()
    train, rest = slice(0, _TRAIN), slice(_TRAIN, None)
    arguments = ForestArguments(trees=15, thresholds=thresholds, low=-1.0, attributes=4)
    same = {"n_estimators": 15, "max_depth": 12, "min_samples_leaf": 5, "max_features": 4, "random_state": 0}
    labels_N = (signal_N > 0).astype(np.int64)
    forest = _forest(arguments, 8)
    found_N = forest.probabilities(learned(forest, points_of(features_NF[train], labels_N[train])), features_NF[rest])
    reference = RandomForestClassifier(**same).fit(features_NF[train], labels_N[train])
    expected_N = reference.predict_proba(features_NF[rest])[:, 1]
    assert found_N.sum(axis=1) == pytest.approx(1)
    assert roc_auc_score(labels_N[rest], found_N[:, 1]) > roc_auc_score(labels_N[rest], expected_N) - 0.015
    regression = _forest(arguments, 8, 1, "number")
    state = learned(regression, points_of(features_NF[train], signal_N[train, None]))
    numbers_N = regression.probabilities(state, features_NF[rest])[:, 0]
    expected_N = RandomForestRegressor(**same).fit(features_NF[train], signal_N[train]).predict(features_NF[rest])
    assert r2_score(signal_N[rest], numbers_N) > r2_score(signal_N[rest], expected_N) - 0.03
