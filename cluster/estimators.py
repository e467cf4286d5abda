"""Estimators in the manner of scikit-learn: a federation that is fitted with data in memory, and forgets people.

    model = sisa.Classifier(shards=5, slices=5, store="./federation")
    model.fit(X, y, ids=frame.index, subjects=frame.email)
    model.erase(subjects=["ann@example.org"])

scikit-learn itself is not needed.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from types import TracebackType
from typing import Any, ClassVar, Final, Self
from weakref import finalize

import numpy as np
import numpy.typing as npt

from cluster.config.specification import FederationSpecification, specification_from
from cluster.federation import Federation, connect
from cluster.results.federation import ErasureAnswer, Verification
from cluster.writer.stores import open_objects
from cluster.writer.training_data import IN_MEMORY
from coordinator.engine.ledger import read_state
from coordinator.ports import Notice, Remark
from coordinator.receipts.bundles import ReceiptBundle
from coordinator.state import FederationState
from coordinator.status import FederationStatus
from shards.data.arrays import (
    MATRIX,
    are_row_numbers,
    class_labels_of,
    class_values,
    column_of,
    default_ids,
    distinct_labels,
    features_of,
    label_texts,
    numbers_of_labels,
    width_of,
)
from shards.data.inventory import inventory
from shards.data.sources import table_source
from shards.learner_kinds.kinds import TORCH
from shards.learners.trainer import SliceLearned
from shards.specification import DataSettings, TrainingSettings
from storage.errors import Invalid
from storage.location import is_on_s3

_DEFAULTS: Final[Mapping[str, Any]] = {"epochs": 20, "batch_size": 32, "learning_rate": 0.01, "optimizer": "adam"}
"""Settings of ``[training]`` that ``sisa.toml`` must have."""

_DERIVED: Final = frozenset({"train", "id", "subject", "label", "features", "classes", "target"})
"""Settings of ``[data]`` that follow from what ``fit`` is given."""

_TABLE_OF: Final[Mapping[str, str]] = {
    **{each.name: "training" for each in fields(TrainingSettings)},
    **{each.name: "data" for each in fields(DataSettings) if each.name not in _DERIVED},
    "key": "partition",
}
"""For each flat setting the table that holds it."""


class Estimator:
    """The common base of estimators: parameters, the federation behind them, and the operations on it."""

    _type: ClassVar[str]
    _target: ClassVar[str]

    def __init__(
        self,
        *,
        learner: str = "torch",
        model: Any = None,
        arguments: Mapping[str, Any] | None = None,
        shards: int = 5,
        slices: int = 5,
        store: str | Path | None = "./federation",
        specification: Mapping[str, Any] | None = None,
        verbose: bool = False,
        **settings: Any,
    ) -> None:
        """Declare the federation; nothing is read or written yet. For the parameters see ``Classifier``."""
        self.learner = learner
        self.model = model
        self.arguments = arguments
        self.shards = shards
        self.slices = slices
        self.store = store
        self.specification = specification
        self.verbose = verbose
        self._settings = settings
        self._federation: Federation | None = None
        self._folder: str | None = None
        self._remove: Callable[[], object] = _nothing

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.get_params().items() if name != "key")
        return f"{type(self).__name__}({shown})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        if self._folder is not None:
            raise Invalid(
                "a fitted estimator with store=None cannot be pickled: its models are in a temporary folder",
                "Name a store: then the estimator is pickled without its models, and finds them there.",
            )
        return self.__dict__ | {"_federation": None, "_remove": _nothing}

    def __sklearn_tags__(self) -> Any:
        """Return scikit-learn's tags of an estimator; called by scikit-learn only."""
        from sklearn.utils import ClassifierTags, RegressorTags, Tags, TargetTags  # noqa: PLC0415  the caller has it

        is_classifier, is_regressor = (self._type == each for each in ("classifier", "regressor"))
        return Tags(
            estimator_type=self._type,
            target_tags=TargetTags(required=is_classifier or is_regressor, multi_output=is_regressor),
            transformer_tags=None,
            classifier_tags=ClassifierTags() if is_classifier else None,
            regressor_tags=RegressorTags() if is_regressor else None,
            non_deterministic="key" not in self._settings,  # drawn with each new store
            requires_fit=False,  # the store may hold what another process has trained
        )

    def close(self) -> None:
        """Release the workers. The store is kept, and the next call opens it again, unless ``store`` is None."""
        if self._federation is not None:
            self._federation.close()
            self._federation = None
        if self._folder is not None:
            self._remove()
            self._folder = None

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002, FBT001, FBT002  scikit-learn's
        """Return all parameters as the constructor takes them."""
        return {name: getattr(self, name) for name in self._own_names()} | self._settings

    def set_params(self, **parameters: Any) -> Self:
        """Change parameters and return the estimator; the next call opens the federation with them."""
        self.close()
        for name, value in parameters.items():
            if name in self._own_names():
                setattr(self, name, value)
            else:
                self._settings[name] = value
        return self

    def _train(
        self, X: Any, labels: Mapping[str, Any], declared: Mapping[str, Any], *, ids: Any, subjects: Any
    ) -> None:
        """Train on these data points; ``labels`` are columns by name, ``declared`` says what they mean."""
        features, columns = features_of(X)
        table = features
        for name, column in labels.items():
            table = table.append_column(name, column)
        data = {"id": _free_name("id", columns), "features": list(columns), "target": self._target, **declared}
        ids_N = default_ids(X, len(features)) if ids is None else column_of(ids, "ids", len(features))
        table = table.append_column(data["id"], ids_N)
        if subjects is not None:
            data["subject"] = _free_name("subject", columns)
            table = table.append_column(data["subject"], column_of(subjects, "subjects", len(features)))
        stored = self._stored()
        if stored is not None and ids is None and are_row_numbers(ids_N):
            _refuse_other_rows(stored, table)
        federation = self._open(self._tables(data, stored.name if stored else "estimator"))
        federation.train(table)
        self.n_features_in_ = width_of(features)
        if columns != (MATRIX,):
            self.feature_names_in_ = np.array(columns, dtype=object)

    def _evaluate(self, X: Any, labels: Sequence[Any]) -> Mapping[str, float]:
        """Return the metrics of predictions for these data points; ``labels`` are columns in the order of training."""
        table = self._checked(X)
        for name, column in zip(self.federation.specification.data.label_columns, labels, strict=True):
            table = table.append_column(name, column)
        return self.federation.evaluate(table).metrics

    def erase(
        self, *, subjects: Iterable[Any] = (), ids: Iterable[Any] = (), request_id: str | None = None
    ) -> ErasureAnswer:
        """Erase people, or single data points, and return the request when it is done. See ``Federation.erase``."""
        return self.federation.erase(
            subjects=[_name(each) for each in subjects], ids=[_name(each) for each in ids], request_id=request_id
        )

    def verify(self) -> Verification:
        """Retrain from nothing without the erased, compare the bytes, and search the store for residue."""
        return self.federation.verify()

    def status(self) -> FederationStatus:
        """Return where the federation and its requests stand."""
        return self.federation.status()

    def receipt(self, request: str | ErasureAnswer) -> ReceiptBundle:
        """Return the signed receipt of a request; its ``to_bytes`` is what ``sisa-check`` takes."""
        return self.federation.registrar.find(request if isinstance(request, str) else request.request_id)

    @property
    def federation(self) -> Federation:
        """The federation behind the estimator, as it was trained.

        Raises ``Invalid`` when its store holds none and ``fit`` was not called.
        """
        if self._federation is None:
            stored = self._stored()
            if stored is None or stored.data is None or not stored.settings:
                raise Invalid(
                    "this estimator is not fitted, and its store holds no federation",
                    "Call fit(X, y), or name the store of a federation.",
                    store=str(self.store),
                )
            if (kind := stored.data.taken.get("target", "class")) != self._target:
                raise Invalid(
                    f"the store holds a federation that predicts a {kind}, and this is a {type(self).__name__}",
                    "Use sisa.Classifier for a class, sisa.Regressor for a number, sisa.Clusterer for a cluster, or"
                    " sisa.connect.",
                    store=str(self.store),
                )
            self._open(self._stored_tables(stored))
            assert self._federation is not None
        return self._federation

    def _own_names(self) -> list[str]:
        return _parameters(type(self))

    def _checked(self, X: Any) -> Any:
        features, columns = features_of(X)
        expected = getattr(self, "n_features_in_", None)
        if columns == (MATRIX,) and expected not in {None, width_of(features)}:
            raise Invalid(
                f"X has {width_of(features)} features, but {type(self).__name__} is expecting {expected} features as"
                " input",
                "Pass the features that it was fitted with.",
            )
        return features

    def _stored(self) -> FederationState | None:
        """Return the state that the store holds; None: it holds no federation."""
        unknown = {"id": "id", "features": ["x"], "target": self._target}
        unknown |= {} if self._target == "cluster" else {"label": "label"}
        unknown |= {"classes": ["0", "1"]} if self._target == "class" else {}
        return read_state(open_objects(self._specified(self._tables(unknown, "estimator"))))

    def _open(self, tables: dict[str, Any]) -> Federation:
        """Open the federation, and release the workers of the one that was open."""
        if self._federation is not None:
            self._federation.close()
        self._federation = connect(self._specified(tables), listener=_report if self.verbose else _ignore)
        return self._federation

    def _tables(self, data: Mapping[str, Any], name: str) -> dict[str, Any]:
        """Return the specification's tables by this estimator's parameters."""
        tables = _plain(self.specification)
        tables.setdefault("name", name)
        for table, own in {
            "data": data,
            "model": {
                "factory": _factory_of(self.model)[0],
                "arguments": self._arguments(),
                **({} if self.learner == TORCH else {"learner": self.learner}),
            },
            "training": _DEFAULTS if self.learner == TORCH else {},
            "partition": {"shards": self.shards, "slices": self.slices},
        }.items():
            tables[table] = {**own, **tables.get(table, {})}
        for setting, value in self._settings.items():
            tables[_table_of(setting, type(self))][setting] = value
        return tables

    def _arguments(self) -> dict[str, Any]:
        return dict(self.arguments or {})

    def _stored_tables(self, state: FederationState) -> dict[str, Any]:
        """Return the tables of what was trained: parameters that bring in others take effect at the next ``fit``."""
        tables = _plain(self.specification)
        for table in ("data", "model", "training", "partition"):
            tables[table] = dict(state.settings[table])
        tables["partition"]["key"] = self._settings.get("key")
        return tables | {"name": state.name}

    def _specified(self, tables: dict[str, Any]) -> FederationSpecification:
        tables["data"] = {"train": IN_MEMORY, **tables["data"]}
        return specification_from(tables | {"store": self._place()}, _factory_of(self.model)[1])

    def _place(self) -> str:
        if self.store is None:
            if self._folder is None:
                self._folder = mkdtemp(prefix="sisa-")
                self._remove = finalize(self, rmtree, self._folder, ignore_errors=True)
            return self._folder
        return str(self.store) if is_on_s3(str(self.store)) else str(Path(self.store).absolute())


class Classifier(Estimator):
    """A federation that classifies, with the interface of a scikit-learn classifier.

    Training runs on Ray, as everywhere; models, slices, journal and receipts are kept in ``store``, where ``sisa`` and
    ``sisa.connect`` find them, too. A Classifier with the same ``store`` continues with the federation there: it can
    predict, erase and verify without ``fit``.
    """

    _type = "classifier"
    _target = "class"

    def __init__(
        self,
        *,
        learner: str = "torch",
        model: Any = None,
        arguments: Mapping[str, Any] | None = None,
        shards: int = 5,
        slices: int = 5,
        store: str | Path | None = "./federation",
        classes: Sequence[Any] | None = None,
        specification: Mapping[str, Any] | None = None,
        verbose: bool = False,
        **settings: Any,
    ) -> None:
        """Declare the federation; nothing is read or written yet.

        ``model``: a function or class that is called with the number of features and of classes and returns a
        ``torch.nn.Module``, or its import path, with further ``arguments``; default: a perceptron with one hidden
        layer. ``store``: a folder or ``s3://bucket/prefix``; None: a temporary folder, which is deleted with the
        estimator. ``classes``: the label set; default: the labels of the first ``fit``, fixed from then on.
        ``settings``: those of the tables ``[training]`` and ``[data]`` of ``sisa.toml`` by their names, and ``key``,
        the partition key. ``specification``: all other tables. ``verbose``: report progress on stderr.
        """
        self.classes = classes
        super().__init__(
            learner=learner,
            model=model,
            arguments=arguments,
            shards=shards,
            slices=slices,
            store=store,
            specification=specification,
            verbose=verbose,
            **settings,
        )

    def fit(self, X: Any, y: Any, *, ids: Any = None, subjects: Any = None) -> Self:
        """Train on these data points, or on what changed since the last ``fit``, and return the estimator.

        ``X``: a pandas or polars frame or Arrow table, whose columns are the features, or an array, shape (N, …).
        ``y``: the labels, shape (N,). ``ids``: what names each data point, unique and lasting; default: a pandas
        frame's index, else row numbers from 0. ``subjects``: whose data point each is; default: each is its own.
        Data points that are missing from a later ``fit`` are removed; erased ones stay out for good.
        Raises ``Invalid`` for data or settings that cannot be trained on.
        """
        features, columns = features_of(X)
        labels = class_labels_of(y, len(features))
        stored = self._stored()
        known = None if stored is None or stored.data is None else stored.data.taken
        classes = tuple(known["classes"]) if known else self._declared_classes(labels)
        name = _free_name("label", columns)
        self._train(X, {name: labels}, {"label": name, "classes": list(classes)}, ids=ids, subjects=subjects)
        self.classes_ = class_values(classes, labels)
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the class of each data point, shape (N,), as one of ``classes_``."""
        found: npt.NDArray[Any] = self._classes()[self.predict_proba(X).argmax(axis=1)]
        return found

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the probability of each class, shape (N, C), in the order of ``classes_``."""
        table = self.federation.predict(self._checked(X)).table()
        names = [f"probability_{name}" for name in self.federation.specification.data.classes]
        return np.stack([table[name].to_numpy() for name in names], axis=1).astype(np.float64)

    def score(self, X: Any, y: Any) -> float:
        """Return the share of data points whose class is predicted right."""
        return self._evaluate(X, [class_labels_of(y, len(features_of(X)[0]))])["accuracy"]

    def _classes(self) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] | None = getattr(self, "classes_", None)
        if found is None:
            self.classes_ = found = class_values(self.federation.specification.data.classes, None)
        return found

    def _declared_classes(self, labels: Any) -> tuple[str, ...]:
        if self.classes is not None:
            return tuple(label_texts(column_of(self.classes, "classes", len(self.classes))))
        return distinct_labels(labels)


class Regressor(Estimator):
    """A federation that predicts numbers, with the interface of a scikit-learn regressor; see ``Classifier``."""

    _type = "regressor"
    _target = "number"

    def fit(self, X: Any, y: Any, *, ids: Any = None, subjects: Any = None) -> Self:
        """Train on these data points, or on what changed since the last ``fit``, and return the estimator.

        ``y``: the numbers, shape (N,) or, for several at once, (N, W). For the rest see ``Classifier.fit``.
        """
        features, columns = features_of(X)
        numbers = numbers_of_labels(y, len(features))
        names = [
            _free_name("label" if len(numbers) == 1 else f"label_{place}", columns) for place in range(len(numbers))
        ]
        declared = {"label": names[0] if len(names) == 1 else names}
        self._train(X, dict(zip(names, numbers, strict=True)), declared, ids=ids, subjects=subjects)
        return self

    def predict(self, X: Any, *, return_std: bool = False) -> Any:
        """Return the predicted number of each data point, shape (N,) or (N, W).

        With ``return_std``, also return the standard deviation over the constituents, in the same shape; for learners
        that give intervals, the standard deviation of the predicted number.
        """
        answers = self.federation.predict(self._checked(X))
        table = answers.table()
        columns = [table[name].to_numpy().astype(np.float64) for name, _ in answers.target.columns]
        width = len(answers.target.names)
        means, spreads = (
            np.stack(part, axis=1) if width > 1 else part[0] for part in (columns[:width], columns[width : 2 * width])
        )
        return (means, spreads) if return_std else means

    def predict_interval(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the bounds of each answer's interval, shape (N, 2) or (N, W, 2), if the learner gives intervals."""
        answers = self.federation.predict(self._checked(X))
        if not answers.target.interval:
            raise Invalid(
                f"answers of the learner {self.learner} have no intervals",
                'Take a learner that gives some, such as learner="bayesian_linear".',
            )
        table = answers.table()
        names = [name for name, _ in answers.target.columns][2 * len(answers.target.names) :]
        ends_N2W = np.stack([table[name].to_numpy().astype(np.float64) for name in names], axis=1)
        ends_NW2 = ends_N2W.reshape(len(ends_N2W), 2, -1).swapaxes(1, 2)
        return ends_NW2 if len(answers.target.names) > 1 else ends_NW2[:, 0]

    def score(self, X: Any, y: Any) -> float:
        """Return R², the mean over the numbers; NaN where all values of one are equal."""
        return self._evaluate(X, numbers_of_labels(y, len(features_of(X)[0]))).get("r2", float("nan"))


def _parameters(kind: type) -> list[str]:
    signature = inspect.signature(kind)
    return [each.name for each in signature.parameters.values() if each.kind is each.KEYWORD_ONLY]


def _table_of(setting: str, kind: type) -> str:
    if setting in _TABLE_OF:
        return _TABLE_OF[setting]
    near = difflib.get_close_matches(setting, [*_parameters(kind), *_TABLE_OF], n=1)
    raise Invalid(
        f"an estimator has no parameter {setting!r}",
        f"Did you mean {near[0]!r}?" if near else "Put settings of other tables into specification={'table': {...}}.",
    )


def _plain(specification: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of the further tables, whose tables may be changed."""
    return {name: dict(each) if isinstance(each, Mapping) else each for name, each in (specification or {}).items()}


def _factory_of(model: Any) -> tuple[str, Path]:
    """Return a model's import path, and the folder in which Python finds its modules."""
    if model is None or isinstance(model, str):
        return model or "shards.models:mlp", Path.cwd()
    name, module = getattr(model, "__qualname__", None), sys.modules.get(getattr(model, "__module__", ""))
    if name is None or module is None or not callable(model):
        raise Invalid(
            f"{type(model).__qualname__} is not a function or class that returns a model",
            "Pass the function that builds the model, not a built model: each constituent needs its own.",
        )
    if "<" in name or module.__name__ == "__main__" or getattr(module, "__file__", None) is None:
        raise Invalid(
            f"workers cannot import {name!r}: it is defined in a notebook, a script that is running, or a function",
            "Put it into a file such as my_model.py, at the top level, and import it from there.",
        )
    depth = module.__name__.count(".") + (Path(str(module.__file__)).name == "__init__.py")
    return f"{module.__name__}:{name}", Path(str(module.__file__)).resolve().parents[depth]


def _refuse_other_rows(stored: FederationState, table: Any) -> None:
    """Raise ``Invalid`` if row numbers of erased data points now name other data points.

    Erased ids stay out, so other people's data points with these numbers would be left out silently.
    """
    if stored.data is None or not stored.tombstone_objects():
        return
    if stored.data.inventory != inventory(table_source(table)):
        raise Invalid(
            "the data have changed, row numbers name the data points, and some of these numbers were erased",
            "Pass ids=, which name the same data points in every fit.",
        )


def _free_name(name: str, columns: Sequence[str]) -> str:
    """Return a name for a column that ``fit`` adds; no feature has this name."""
    while name in columns:
        name += "_"
    return name


def _name(value: Any) -> str | int:
    """Return a name as it is in the data: NumPy's integers become integers."""
    return int(value) if isinstance(value, np.integer) else value


def _ignore(_: Notice) -> None:
    pass


def _nothing() -> None:
    pass


def _report(notice: Notice) -> None:
    if isinstance(notice, Remark):
        sys.stderr.write(f"{notice.text}\n")
    elif isinstance(notice, SliceLearned):
        sys.stderr.write(f"shard {notice.shard}: slice {notice.slice} is learned\n")
