"""An estimator's learned state: its attributes, as arrays and JSON, and back. No pickle anywhere.

Types are kept exactly, because arithmetic depends on them: a Python float leaves an array of float32 what it is, a
NumPy float64 does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from storage.digests import Json, canonical_json
from storage.errors import Invalid

ATTRIBUTES: Final = "attributes"
"""Name of the array that holds the JSON."""
_PARTS: Final = frozenset({"AdamOptimizer", "LabelBinarizer", "SGDOptimizer"})
"""Classes of objects that are attributes. They are restored by their own attributes."""
_DERIVED: Final = frozenset({"_loss_function_", "_random_state", "_best_coefs", "_best_intercepts"})
"""Attributes that each call of ``partial_fit`` makes again, or that only early stopping reads."""

SERVING: Final = frozenset(
    {"classes_", "coef_", "coefs_", "intercept_", "intercepts_", "n_features_in_", "n_layers_", "n_outputs_"}
    | {"out_activation_", "_label_binarizer"}
)
"""Attributes that answers need; the others are of training, such as means of gradients."""

Arrays = dict[str, npt.NDArray[Any]]


def taken(estimator: Any, only: frozenset[str] | None = None) -> Arrays:
    """Return the learned attributes of ``estimator``; with ``only``, just these.

    Raises ``Invalid`` with the attribute that cannot be kept.
    """
    arrays: Arrays = {}
    parameters = estimator.get_params()
    values = {
        name: _encoded(value, f"{type(estimator).__name__}.{name}", arrays)
        for name, value in vars(estimator).items()
        if name not in parameters and name not in _DERIVED and (only is None or name in only)
    }
    arrays[ATTRIBUTES] = np.frombuffer(canonical_json(values), dtype=np.uint8)
    return arrays


def put(estimator: Any, arrays: Mapping[str, npt.NDArray[Any]], only: frozenset[str] | None = None) -> None:
    """Set the attributes of ``estimator`` from ``arrays``.

    Raises ``ValueError`` or ``LookupError`` if ``taken`` makes no such.
    """
    values = json.loads(arrays[ATTRIBUTES].tobytes())
    if only is not None and not values.keys() <= only:
        raise LookupError
    for name, value in values.items():
        setattr(estimator, name, _decoded(value, arrays))


def _encoded(value: Any, name: str, arrays: Arrays) -> Json:
    if value is None or type(value) in {bool, int, str}:
        return value  # type: ignore[no-any-return]
    if type(value) is float:
        return {"float": value.hex()}
    if type(value) in {list, tuple}:
        return {type(value).__name__: [_encoded(each, f"{name}[{n}]", arrays) for n, each in enumerate(value)]}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf":
        arrays[name] = np.atleast_1d(value)
        if isinstance(value, np.generic):
            return {"scalar": name}
        is_by_column = value.flags.f_contiguous and not value.flags.c_contiguous
        return {"by_column" if is_by_column else "array": name}
    kind = type(value).__name__
    if kind in _PARTS:
        own = {each: _encoded(part, f"{name}.{each}", arrays) for each, part in vars(value).items()}
        return {"object": kind, "attributes": own}
    raise Invalid(
        f"[model] arguments.estimator: its attribute {name} is a {kind}, which a checkpoint cannot hold",
        "Take another estimator, or the version of scikit-learn in constraints.txt.",
    )


def _decoded(value: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    if not isinstance(value, dict):
        return value
    if "object" in value:
        made: Any = object.__new__(_part(value["object"]))
        for name, each in value["attributes"].items():
            setattr(made, name, _decoded(each, arrays))
        return made
    [(kind, held)] = value.items()
    if kind in {"list", "tuple"}:
        several = [_decoded(each, arrays) for each in held]
        return several if kind == "list" else tuple(several)
    if kind == "float":
        return float.fromhex(held)
    if kind == "scalar":
        return arrays[held][0]
    return np.asfortranarray(arrays[held]) if kind == "by_column" else arrays[held].copy()


def _part(name: str) -> type:
    from sklearn import preprocessing  # noqa: PLC0415  it takes a second
    from sklearn.neural_network import _stochastic_optimizers  # noqa: PLC0415

    if name not in _PARTS:
        raise LookupError
    kind: type = getattr(_stochastic_optimizers, name, None) or getattr(preprocessing, name)
    return kind
