"""The optimizers that ``[training] optimizer`` may name, and their arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

_NUMBER: Final = "a number, 0 or more"
_SHARE: Final = "a number from 0 to below 1"
_FLAG: Final = "true or false"

_BETAS: Final = frozenset({"betas", "epsilon"})
_MOMENTUM: Final = frozenset({"momentum"})
_EPSILON: Final = frozenset({"epsilon"})

OPTIMIZERS: Final[Mapping[str, tuple[frozenset[str], Mapping[str, str]]]] = {
    "sgd": (_MOMENTUM | {"nesterov"}, {}),
    "adam": (_BETAS, {"amsgrad": _FLAG}),
    "adamw": (_BETAS, {"amsgrad": _FLAG}),
    "rmsprop": (_EPSILON | _MOMENTUM, {"alpha": _SHARE, "centered": _FLAG}),
    "adagrad": (_EPSILON, {"lr_decay": _NUMBER, "initial_accumulator_value": _NUMBER}),
    "adadelta": (_EPSILON, {"rho": _SHARE}),
    "adamax": (_BETAS, {}),
    "nadam": (_BETAS, {"momentum_decay": _NUMBER, "decoupled_weight_decay": _FLAG}),
    "radam": (_BETAS, {"decoupled_weight_decay": _FLAG}),
}
"""For each optimizer the settings of ``[training]`` that belong to it besides learning rate and weight decay, and the
arguments that ``optimizer_arguments`` may give, named as in ``torch.optim``."""


def belongs_to(setting: str) -> str:
    """Return the names of the optimizers that have this setting, as a text.

    >>> belongs_to("nesterov")
    'sgd'
    """
    return ", ".join(name for name, (settings, _) in OPTIMIZERS.items() if setting in settings)


def argument_problems(optimizer: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the arguments of a known optimizer."""
    _, known = OPTIMIZERS[optimizer]
    problems = []
    for name, value in arguments.items():
        if name not in known:
            has = f"it takes {', '.join(known)}" if known else "it takes none"
            problems.append(f"optimizer_arguments.{name} is not an argument of {optimizer}; {has}")
        elif not _fits(known[name], value):
            problems.append(f"optimizer_arguments.{name} must be {known[name]}, got {value!r}")
    return problems


def _fits(expected: str, value: object) -> bool:
    if expected == _FLAG or isinstance(value, bool):
        return expected == _FLAG and isinstance(value, bool)
    most = 1.0 if expected == _SHARE else math.inf
    return isinstance(value, int | float) and 0 <= value < most
