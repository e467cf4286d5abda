"""Estimators: a federation with the interface of scikit-learn, with its workers in this process."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import check_estimator

import sisa
from cluster.estimators import Classifier, Regressor
from coordinator.receipts.bundles import ReceiptBundle
from storage.errors import Conflict, Invalid
from tests.doubles.user_folder import UserFolder

POINTS: Final = 120
PEOPLE: Final = [f"person-{number % 30:02d}" for number in range(POINTS)]
ERASED: Final = PEOPLE[3]

EXCUSED: Final = {
    "check_dtype_object": "values that are not numbers are bad input (Invalid, a ValueError), not a TypeError",
    "check_estimators_pickle": "models are in the store and not in the object, which pickles without them",
    "check_supervised_y_2d": "a column of labels is taken as it is, without a warning",
}
"""scikit-learn's checks that do not make sense here, and why."""

Data = tuple[npt.NDArray[np.float32], npt.NDArray[np.str_]]


@pytest.fixture
def data(home: UserFolder) -> Data:
    """Features of two classes that a small network can separate; the current folder is empty but for a home."""
    assert home.folder == Path.cwd()
    X_NF = np.random.default_rng(5).normal(size=(POINTS, 3)).astype(np.float32)
    return X_NF, np.where(X_NF[:, 0] > 0, "yes", "no")


def estimator(**parameters: Any) -> Classifier:
    """Return a small estimator with a store in the current folder."""
    own: dict[str, Any] = {"shards": 2, "slices": 2, "epochs": 6, "store": "own"}
    return sisa.Classifier(**own | parameters)


def digests(model: Classifier | Regressor) -> list[str | None]:
    """Return the digests of its constituents."""
    return [each.digest for each in model.status().constituents]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # it would rather have its own base class
@pytest.mark.usefixtures("home")
def test_the_checks_of_scikit_learn() -> None:
    """All pass but those that are excused, and an excuse that is not needed fails as well."""
    found = check_estimator(
        sisa.Classifier(store=None, shards=1, slices=1, epochs=2, key="0f" * 16),
        expected_failed_checks=EXCUSED,
        on_fail="raise",
    )
    assert {each["check_name"] for each in found if each["status"] == "xfail"} == EXCUSED.keys()


def test_the_whole_story(data: Data) -> None:
    """Fit, predict, score, erase, verify; the result is that of an estimator that never saw the erased person."""
    X_NF, y_N = data
    with estimator(key="0f" * 16) as model:
        assert model.fit(X_NF, y_N, subjects=PEOPLE) is model
        assert model.classes_.tolist() == ["no", "yes"]
        assert model.score(X_NF, y_N) > 0.9
        probabilities_NC = model.predict_proba(X_NF)
        np.testing.assert_allclose(probabilities_NC.sum(axis=1), 1, rtol=1e-6)
        assert (model.classes_[probabilities_NC.argmax(axis=1)] == model.predict(X_NF)).all()
        erased = model.erase(subjects=[ERASED], request_id="er-1")
        assert (erased.state, erased.points) == ("complete", PEOPLE.count(ERASED))
        assert model.verify().holds
        assert isinstance(model.receipt(erased), ReceiptBundle)
        assert model.receipt("er-1") == model.receipt(erased)
        after = digests(model)
        model.fit(X_NF, y_N, subjects=PEOPLE)
        assert digests(model) == after  # erased people stay out
    kept = np.array([person != ERASED for person in PEOPLE])
    ids = np.flatnonzero(kept)
    with estimator(key="0f" * 16, store="fresh") as fresh:
        fresh.fit(X_NF[kept], y_N[kept], ids=ids, subjects=[PEOPLE[number] for number in ids])
        assert digests(fresh) == after


def test_a_store_is_enough(data: Data) -> None:
    """Another process predicts, erases and verifies by the store alone, as what is stored was trained."""
    X_NF, y_N = data
    with estimator(key="0f" * 16, arguments={"hidden": [5]}) as model:
        expected = model.fit(X_NF, y_N, subjects=PEOPLE).predict_proba(X_NF)
        pickled = pickle.dumps(model)
    with sisa.Classifier(store="own") as other:
        np.testing.assert_array_equal(other.predict_proba(X_NF), expected)
        assert other.predict(X_NF).tolist() == np.where(expected.argmax(axis=1), "yes", "no").tolist()
        assert other.erase(subjects=[ERASED]).state == "complete"
        assert other.verify().holds
    with pickle.loads(pickled) as third:
        assert third.status().points == POINTS - PEOPLE.count(ERASED)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([True, False], [False, True]),
        ([7, -1], [-1, 7]),
        ([1.0, 0.0], [0.0, 1.0]),
        (["b", "a"], ["a", "b"]),
    ],
)
def test_classes_are_what_they_were(labels: list[Any], classes: list[Any], data: Data) -> None:
    """Predictions have the type of the labels, in the order of NumPy; a later fit cannot change the label set."""
    X_NF, y_N = data
    y = np.where(y_N == "yes", *labels)
    with estimator() as model:
        assert model.fit(X_NF, y).classes_.tolist() == classes
        assert model.classes_.dtype == y.dtype
        assert model.predict(X_NF).dtype == y.dtype
        alike = np.full(POINTS, labels[0])
        assert model.fit(X_NF, alike).classes_.tolist() == classes


def test_frames_bring_ids_and_names(data: Data) -> None:
    """A pandas frame's index names the data points, its columns the features, in any order."""
    X_NF, y_N = data
    frame = pd.DataFrame(X_NF, columns=["id", "label", "c"], index=[f"row-{number}" for number in range(POINTS)])
    with estimator() as model:
        model.fit(frame, pd.Series(y_N, index=frame.index), subjects=pd.Series(PEOPLE))
        assert model.feature_names_in_.tolist() == ["id", "label", "c"]
        assert model.erase(ids=["row-3"]).points == 1
        expected = model.predict_proba(frame)
        np.testing.assert_array_equal(model.predict_proba(frame[["c", "label", "id"]]), expected)
        np.testing.assert_array_equal(model.predict_proba(pa.Table.from_pandas(frame)), expected)


def test_cross_validation(data: Data) -> None:
    """Without a store each clone has one of its own, which is gone when it is closed."""
    X_NF, y_N = data
    assert cross_val_score(estimator(store=None), X_NF, y_N, cv=2).min() > 0.8
    with estimator(store=None).fit(X_NF, y_N) as model:
        folder = Path(model.federation.specification.store)
        assert folder.is_dir()
        with pytest.raises(Invalid, match="store=None cannot be pickled"):
            pickle.dumps(model)
    assert not folder.exists()


def test_what_is_missing_is_taken_out_and_may_return(data: Data) -> None:
    """A later fit with fewer data points removes the others; unlike erased ones they may come back."""
    X_NF, y_N = data
    with estimator(key="0f" * 16) as model:
        before = digests(model.fit(X_NF, y_N))
        model.fit(X_NF[:-5], y_N[:-5])
        assert model.status().points == POINTS - 5
        assert digests(model.fit(X_NF, y_N)) == before


def test_a_model_of_ones_own(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of a module is named by its import path; what workers cannot import is refused with the remedy."""
    X_NF, y_N = data
    source = "from torch import nn\n\n\ndef build(inputs, classes):\n    return nn.Linear(inputs, classes)\n"
    Path("own_net.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(Path.cwd())
    own_net = import_module("own_net")
    with estimator(model=own_net.build) as model:
        model.fit(X_NF, y_N)
        assert model.federation.specification.model.factory == "own_net:build"
        assert model.federation.specification.folder == Path.cwd()
    with estimator(model="own_net:build") as model:
        assert model.fit(X_NF, y_N).verify().holds
    for other in (lambda inputs, _: own_net.build(inputs, 2), own_net.build(3, 2), 7):
        with pytest.raises(Invalid, match=r"workers cannot import .*my_model\.py|not a function or class .*builds"):
            estimator(model=other, store="other").fit(X_NF, y_N)


def test_row_numbers_of_the_erased_are_not_given_to_others(data: Data) -> None:
    """Erased ids stay out. Where row numbers are the ids, other rows would be left out under them: that is refused."""
    X_NF, y_N = data
    with estimator() as model:
        model.fit(X_NF, y_N, subjects=PEOPLE)
        assert model.erase(subjects=[ERASED, "nobody"]).unknown_names == ("nobody",)
        kept = [number for number in range(POINTS) if PEOPLE[number] != ERASED]
        people = [PEOPLE[number] for number in kept]
        with pytest.raises(Invalid, match="some of these numbers were erased.*Pass ids="):
            model.fit(X_NF[kept], y_N[kept], subjects=people)
        assert model.fit(X_NF, y_N, subjects=PEOPLE).status().points == len(kept)
        assert model.fit(X_NF[kept], y_N[kept], ids=kept, subjects=people).status().points == len(kept)


@pytest.mark.parametrize(
    ("act", "match"),
    [
        (lambda m, X, y: m.fit(X, y[:-1]), "y has 119 values for 120 data points"),
        (lambda m, X, y: m.fit(X, y, ids=["a"] * POINTS), "same id"),
        (lambda m, X, y: m.fit(X, y, subjects=[*PEOPLE[:-1], None]), r"subject.*row=120"),
        (lambda m, X, _: m.fit(X, None), "requires y"),
        (lambda m, X, _: m.fit(X, X[:, 0]), "Unknown label type"),
        (lambda m, X, y: m.fit(X, [None, *y[1:]]), "nulls"),
        (lambda m, X, y: m.fit(X[:, 0], y), "Reshape your data"),
        (lambda m, X, y: m.fit(X.astype(str)[:, :0], y), r"0 feature\(s\)"),
        (lambda m, _, y: m.fit([["a", "b"]] * POINTS, y), "not numbers"),
        (lambda m, _, y: m.fit("train.parquet", y), "Pass the data themselves"),
        (lambda m, X, y: m.set_params(epoch=3).fit(X, y), "no parameter 'epoch'.*Did you mean 'epochs'"),
        (lambda m, X, y: m.set_params(learner="oracle").fit(X, y), "learner"),
        (lambda m, X, _: m.predict(X), "is not fitted, and its store holds no federation"),
        (lambda m, X, y: m.fit(X, y).predict(X[:, :2]), "X has 2 features, but Classifier is expecting 3"),
        (lambda m, X, y: m.fit(X, y).fit(X, ["other", *y[1:]]), r"'other' is not in \[data\] classes"),
    ],
)
def test_bad_input(act: Callable[..., object], match: str, data: Data) -> None:
    """Each mistake is one error with a remedy, and nothing was trained with it."""
    X_NF, y_N = data
    with estimator() as model, pytest.raises(Invalid, match=match) as caught:
        act(model, X_NF, y_N)
    assert caught.value.remedy


def test_a_coordinator_reads_for_itself(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a coordinator runs, a table in memory is refused: it could not go there but through Ray's store."""
    X_NF, y_N = data
    with estimator().fit(X_NF, y_N) as model:
        monkeypatch.setattr(sisa.Federation, "_coordinator", lambda _: object())
        with pytest.raises(Conflict, match="cannot be sent to it"):
            model.fit(X_NF[1:], y_N[1:])


def test_an_index_with_a_name_is_no_feature(data: Data) -> None:
    """It names the data points, as one without a name does, and so they are predicted from a frame without it, too."""
    X_NF, y_N = data
    frame = pd.DataFrame(X_NF, columns=["a", "b", "c"]).set_index(pd.RangeIndex(7, 7 + POINTS)[::-1].rename("number"))
    with estimator() as model:
        model.fit(frame, y_N)
        assert list(model.feature_names_in_) == ["a", "b", "c"]
        assert (model.predict(frame) == model.predict(frame.reset_index(drop=True))).all()
        assert model.erase(ids=[7]).points == 1


def test_a_federation_takes_what_python_has(home: UserFolder) -> None:
    """Files by name, frames and structured arrays are the same data points; frames come out as they went in."""
    table = pq.read_table(home.folder / "train.parquet")
    table.slice(20).to_pandas().to_csv("some.csv", index=False)
    with sisa.connect("sisa.toml") as federation:
        trained = federation.train("some.csv").constituents
        frame = table.slice(20).to_pandas()
        assert federation.train(frame.to_records(index=False)).constituents == trained
        answers = federation.predict(frame.set_index("id")).frame()
        assert answers.index.equals(frame.set_index("id").index)
        assert answers["prediction"].to_list() == federation.predict("some.csv").table()["prediction"].to_pylist()
        assert [each.digest for each in federation.train().constituents] != [each.digest for each in trained]


@pytest.mark.usefixtures("home")
def test_the_example_of_the_guide() -> None:
    """The guide's example runs as it stands, on a frame with the columns that it names."""
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(import sisa\n\nmodel = .*?)```", guide, re.DOTALL)
    people = [*(f"person-{number}@example.org" for number in range(39)), "ann@example.org"]
    frame = pd.DataFrame({"id": range(40), "age": range(40), "income": [1.0] * 40, "email": people})
    frame["plan"] = np.where(frame["age"] > 20, "pro", "free")
    names: dict[str, Any] = {"frame": frame}
    exec(example, names)  # noqa: S102  our own page
    with names["model"] as model:
        assert model.status().points == 39
        assert names["request"].state == "complete"


Numbers = tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]


@pytest.fixture
def numbers(data: Data) -> Numbers:
    """Features and two numbers that follow from them."""
    X_NF, _ = data
    return X_NF, np.stack([X_NF @ [1.0, -0.5, 0.0], X_NF[:, 2]], axis=1)


def regressor(**parameters: Any) -> Regressor:
    """Return a small regressor with a store in the current folder."""
    own: dict[str, Any] = {"shards": 2, "slices": 2, "epochs": 20, "store": "own", "key": "0f" * 16}
    return sisa.Regressor(**own | parameters)


@pytest.mark.parametrize("several", [False, True])
def test_numbers_are_predicted(several: bool, numbers: Numbers) -> None:
    """Predictions have the shape of y, with the spread over the constituents; R² is that of scikit-learn; an erasure is
    exact.
    """
    X_NF, y_NW = numbers
    y = y_NW if several else y_NW[:, 0]
    with regressor() as model:
        assert model.fit(X_NF, y, subjects=PEOPLE) is model
        predicted, spread = model.predict(X_NF, return_std=True)
        assert predicted.shape == spread.shape == y.shape
        assert (spread > 0).any()
        assert model.score(X_NF, y) == pytest.approx(r2_score(y, predicted), abs=1e-5)
        assert model.score(X_NF, y) > 0.8
        assert model.erase(subjects=[ERASED]).points == PEOPLE.count(ERASED)
        assert model.verify().holds
        after = digests(model)
    with sisa.Regressor(store="own") as other:
        assert digests(other) == after
        assert other.predict(X_NF).shape == y.shape
    with sisa.Classifier(store="own") as wrong, pytest.raises(Invalid, match="predicts a number, and this is a Class"):
        wrong.predict(X_NF)


def test_numbers_of_any_size_are_learned(numbers: Numbers) -> None:
    """With declared constants, numbers far from -1 .. 1 are learned as well, answered and measured in their own unit;
    an erasure is exact, and a store is enough.
    """
    X_NF, y_NW = numbers
    y_N = 40_000 + 9_000 * y_NW[:, 0]
    with regressor(label_shift=40_000.0, label_scale=9_000.0) as model:
        model.fit(X_NF, y_N, subjects=PEOPLE)
        predicted, spread = model.predict(X_NF, return_std=True)
        assert model.score(X_NF, y_N) == pytest.approx(r2_score(y_N, predicted), abs=1e-4)
        assert model.score(X_NF, y_N) > 0.8
        assert spread.mean() > 50
        model.erase(subjects=[ERASED])
        assert model.verify().holds
        expected = model.predict(X_NF)
    with sisa.Regressor(store="own") as other:
        assert other.predict(X_NF).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("act", "match"),
    [
        (lambda m, X, _: m.fit(X, None), "requires y"),
        (lambda m, X, y: m.fit(X, y[:-1]), r"y has the shape \(119, 2\) for 120 data points"),
        (lambda m, X, _: m.fit(X, ["a"] * POINTS), "not numbers.*use sisa.Classifier"),
        (lambda m, X, y: m.fit(X, y * np.nan), "infinity or NaN"),
        (lambda m, X, y: m.fit(X, y).predict(X[:, :2]), "X has 2 features, but Regressor is expecting 3"),
        (lambda m, X, y: m.set_params(classes=["a"]).fit(X, y), "no parameter 'classes'"),
        (
            lambda m, X, y: m.set_params(loss="cross_entropy").fit(X, y),
            r"is not one of the target number\. Take mse or mae or huber",
        ),
    ],
)
def test_bad_input_of_a_regressor(act: Callable[..., object], match: str, numbers: Numbers) -> None:
    """Each mistake is one error with a remedy."""
    with regressor() as model, pytest.raises(Invalid, match=match) as caught:
        act(model, *numbers)
    assert caught.value.remedy


@pytest.mark.slow
@pytest.mark.usefixtures("home")
@pytest.mark.filterwarnings("ignore::UserWarning")  # it would rather have its own base class
def test_the_checks_of_scikit_learn_for_a_regressor() -> None:
    """All pass but those that are excused, and an excuse that is not needed fails as well."""
    model = sisa.Regressor(store=None, shards=1, slices=1, epochs=2, key="0f" * 16)
    excused = {name: reason for name, reason in EXCUSED.items() if name != "check_supervised_y_2d"}
    found = check_estimator(model, expected_failed_checks=excused, on_fail="raise")
    assert {each["check_name"] for each in found if each["status"] == "xfail"} == excused.keys()
