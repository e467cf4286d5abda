"""Softmax regression and a network of one hidden layer, in float64: values, gradients, probabilities.

Parameters are one vector, so that methods which compare or combine parameters need not know the model.
Shape legend: N points, F features, H hidden units, C classes, P parameters, I inputs and
O outputs of a layer.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
LabelNumbers = npt.NDArray[Any]


class Model(Protocol):
    """A classifier with parameters that are one vector."""

    @property
    def size(self) -> int:
        """P, the number of parameters."""
        ...

    def initial(self, seed: int) -> Doubles:
        """Return parameters to start from, shape (P,)."""
        ...

    def logits(self, parameters_P: Doubles, features_NF: npt.NDArray[Any]) -> Doubles:
        """Return the logarithms of the classes' probabilities, up to a constant of each data point; shape (N, C)."""
        ...

    def gradient(self, parameters_P: Doubles, features_NF: npt.NDArray[Any], labels_N: LabelNumbers) -> Doubles:
        """Return the gradient of the mean cross-entropy, shape (P,): zeros where there is no data point."""
        ...


class InformedModel(Model, Protocol):
    """A model that knows how much its answers change with each parameter."""

    def fisher(self, parameters_P: Doubles, features_NF: npt.NDArray[Any]) -> Doubles:
        """Return the diagonal of the mean Fisher information, shape (P,): zeros where there is no data point.

        Of each parameter it is the expected square of the log-probability's derivative, over the classes as the model
        itself finds them likely.
        """
        ...


def probabilities(logits_NC: Doubles) -> Doubles:
    """Return the probabilities of the classes, shape (N, C)."""
    shares_NC: Doubles = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    shares_NC /= shares_NC.sum(axis=1, keepdims=True)
    return shares_NC


def mean_loss(logits_NC: Doubles, labels_N: LabelNumbers) -> float:
    """Return the mean cross-entropy."""
    highest_N1 = logits_NC.max(axis=1, keepdims=True)
    sums_N = np.log(np.exp(logits_NC - highest_N1).sum(axis=1)) + highest_N1[:, 0]
    return float(np.mean(sums_N - logits_NC[np.arange(len(labels_N)), labels_N]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Softmax:
    """Softmax regression with a constant: C rows of F + 1 coefficients. It starts from zeros."""

    inputs: int
    classes: int

    @property
    def size(self) -> int:
        """See ``Model``."""
        return self.classes * (self.inputs + 1)

    def initial(self, seed: int) -> Doubles:
        """Return zeros: the problem is convex."""
        del seed
        return np.zeros(self.size)

    def logits(self, parameters_P: Doubles, features_NF: npt.NDArray[Any]) -> Doubles:
        """See ``Model``."""
        weights_CF, constants_C = _layer(parameters_P, self.classes, self.inputs)
        found_NC: Doubles = features_NF @ weights_CF.T
        found_NC += constants_C
        return found_NC

    def gradient(self, parameters_P: Doubles, features_NF: npt.NDArray[Any], labels_N: LabelNumbers) -> Doubles:
        """See ``Model``."""
        if not len(labels_N):
            return np.zeros(self.size)
        errors_NC = _errors(self.logits(parameters_P, features_NF), labels_N)
        return np.concatenate([(errors_NC.T @ features_NF).ravel(), errors_NC.sum(axis=0)])

    def fisher(self, parameters_P: Doubles, features_NF: npt.NDArray[Any]) -> Doubles:
        """See ``InformedModel``."""
        if not len(features_NF):
            return np.zeros(self.size)
        return _information(_spread(probabilities(self.logits(parameters_P, features_NF))), features_NF)


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A network of one hidden layer of rectified linear units, as DeltaGrad's authors ran it (784-300-10).

    It starts from uniform numbers within ``1 / sqrt(inputs)`` of each layer, as torch's linear layers do.
    """

    inputs: int
    classes: int
    hidden: int = 300

    @property
    def size(self) -> int:
        """See ``Model``."""
        return self.hidden * (self.inputs + 1) + self.classes * (self.hidden + 1)

    def initial(self, seed: int) -> Doubles:
        """See ``Model``."""
        first, second = self.hidden * (self.inputs + 1), self.classes * (self.hidden + 1)
        drawn_P = 2 * uniform_numbers(f"net/{seed}", first + second) - 1
        drawn_P[:first] /= np.sqrt(self.inputs)
        drawn_P[first:] /= np.sqrt(self.hidden)
        return drawn_P

    def logits(self, parameters_P: Doubles, features_NF: npt.NDArray[Any]) -> Doubles:
        """See ``Model``."""
        return self._forward(parameters_P, features_NF)[1]

    def gradient(self, parameters_P: Doubles, features_NF: npt.NDArray[Any], labels_N: LabelNumbers) -> Doubles:
        """See ``Model``."""
        if not len(labels_N):
            return np.zeros(self.size)
        units_NH, logits_NC = self._forward(parameters_P, features_NF)
        errors_NC = _errors(logits_NC, labels_N)
        weights_CH, _ = _layer(parameters_P[self.hidden * (self.inputs + 1) :], self.classes, self.hidden)
        errors_NH: Doubles = errors_NC @ weights_CH
        errors_NH *= units_NH > 0
        return np.concatenate(
            [
                (errors_NH.T @ features_NF).ravel(),
                errors_NH.sum(axis=0),
                (errors_NC.T @ units_NH).ravel(),
                errors_NC.sum(axis=0),
            ]
        )

    def fisher(self, parameters_P: Doubles, features_NF: npt.NDArray[Any]) -> Doubles:
        """See ``InformedModel``."""
        if not len(features_NF):
            return np.zeros(self.size)
        units_NH, logits_NC = self._forward(parameters_P, features_NF)
        likely_NC = probabilities(logits_NC)
        weights_CH, _ = _layer(parameters_P[self.hidden * (self.inputs + 1) :], self.classes, self.hidden)
        # the derivative by a hidden unit is its weight for the class drawn, less the expected one: a variance remains
        spread_NH: Doubles = np.maximum(likely_NC @ weights_CH**2 - (likely_NC @ weights_CH) ** 2, 0)
        spread_NH *= units_NH > 0
        return np.concatenate([_information(spread_NH, features_NF), _information(_spread(likely_NC), units_NH)])

    def _forward(self, parameters_P: Doubles, features_NF: npt.NDArray[Any]) -> tuple[Doubles, Doubles]:
        first = self.hidden * (self.inputs + 1)
        weights_HF, constants_H = _layer(parameters_P[:first], self.hidden, self.inputs)
        weights_CH, constants_C = _layer(parameters_P[first:], self.classes, self.hidden)
        units_NH: Doubles = features_NF @ weights_HF.T
        units_NH += constants_H
        np.maximum(units_NH, 0, out=units_NH)
        return units_NH, units_NH @ weights_CH.T + constants_C


def uniform_numbers(stream: str, count: int) -> Doubles:
    """Return numbers between 0 and 1 that depend on the stream's name alone.

    >>> uniform_numbers("example", 2).round(3).tolist()
    [0.073, 0.289]
    """
    words = np.frombuffer(hashlib.shake_256(stream.encode()).digest(8 * count), dtype="<u8")
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normal_numbers(stream: str, count: int) -> Doubles:
    """Return standard normal numbers that depend on the stream's name alone (Box and Muller)."""
    radii, angles = uniform_numbers(stream, 2 * count).reshape(2, count)
    found: Doubles = np.sqrt(-2 * np.log(radii)) * np.cos(2 * np.pi * angles)
    return found


def keyed_bytes(stream: str) -> Callable[[int], bytes]:
    """Return a source of bytes that depend on the stream's name alone, for methods whose noise is otherwise secret.

    >>> draw = keyed_bytes("example")
    >>> draw(2).hex(), draw(2).hex()
    ('8901', 'f340')
    """
    calls = itertools.count()
    return lambda size: hashlib.shake_256(f"{stream}/{next(calls)}".encode()).digest(size)


def keyed_order(stream: str, count: int) -> npt.NDArray[np.int64]:
    """Return the numbers below ``count`` in an order that depends on the stream's name and on ``count`` alone."""
    return np.argsort(uniform_numbers(stream, count), kind="stable")


def _layer(parameters_P: Doubles, outputs: int, inputs: int) -> tuple[Doubles, Doubles]:
    """Return the matrix and the constants of a layer whose parameters come first."""
    return parameters_P[: outputs * inputs].reshape(outputs, inputs), parameters_P[outputs * inputs :][:outputs]


def _spread(likely_NC: Doubles) -> Doubles:
    """Return the expected square of the log-probability's derivative by each logit."""
    return likely_NC * (1 - likely_NC)


def _information(spread_NO: Doubles, inputs_NI: npt.NDArray[Any]) -> Doubles:
    """Return the diagonal for a layer, given the expected square of the derivative by each of its outputs."""
    squares_NI = np.square(inputs_NI, dtype=np.float64)
    return np.concatenate([(spread_NO.T @ squares_NI).ravel(), spread_NO.sum(axis=0)]) / len(spread_NO)


def _errors(logits_NC: Doubles, labels_N: LabelNumbers) -> Doubles:
    """Return the derivative of the mean cross-entropy by the logits."""
    errors_NC = probabilities(logits_NC)
    errors_NC[np.arange(len(labels_N)), labels_N] -= 1
    errors_NC /= len(labels_N)
    return errors_NC
