"""The registry: opens the learner that a specification names. No other module constructs a learner.

Torch is loaded only for networks: to load it takes longer than many an erasure of other learners.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from shards.encoding import InputShape
from shards.learner_kinds.kinds import LEARNERS, TORCH
from shards.learners.blas import blas_profile
from shards.learners.boosting.learner import Boosting
from shards.learners.boosting.library import boosting_profile
from shards.learners.certified.learner import CertifiedLinear
from shards.learners.forest.learner import Forest
from shards.learners.k_means.learner import KMeans
from shards.learners.protocol import Learner
from shards.learners.scikit.learner import Scikit, scikit_profile
from shards.learners.summation.bayesian_linear import BayesianLinear
from shards.learners.summation.conjugate import BetaBernoulli, DirichletCategorical, GammaPoisson
from shards.learners.summation.cooccurrence import Cooccurrence
from shards.learners.summation.naive_bayes import NaiveBayes
from shards.learners.summation.ridge import Ridge
from shards.lineage import Device, NumericsProfile
from shards.recipe.kernels import SEPARATE
from shards.specification import ModelSettings, TrainingSettings
from shards.targets import Class
from storage.digests import Sha256, digest_of

_MADE_BY: Final[Mapping[str, Callable[[Any, int, int, str, int], Learner[Any]]]] = {
    "naive_bayes": NaiveBayes,
    "forest": Forest,
    "k_means": KMeans,
    "cooccurrence": Cooccurrence,
    "ridge": Ridge,
    "bayesian_linear": BayesianLinear,
    "beta_bernoulli": BetaBernoulli,
    "dirichlet_categorical": DirichletCategorical,
    "gamma_poisson": GammaPoisson,
    "certified_linear": CertifiedLinear,
}
"""The learners that take points out directly, made from their arguments, features, outputs, target and seed."""

_CONTINUED: Final[Mapping[str, Callable[[Any, int, int, str, TrainingSettings, int], Learner[Any]]]] = {
    "boosting": Boosting,
    "sklearn": Scikit,
}
"""Learners that continue from slice to slice, made from their arguments, features, outputs, target, training and
slices."""

_PROFILES: Final[Mapping[str, Callable[[bool], NumericsProfile]]] = {
    "boosting": boosting_profile,
    "certified_linear": blas_profile,
    "sklearn": scikit_profile,
}
"""The conditions that decide the bits of learners that do not compute with whole numbers."""

_WHOLE_NUMBERS: Final = NumericsProfile(
    torch="", threads=1, device="any", dtype="int64", deterministic=True, packing="none"
)
"""Constituents of whole numbers are the same on every machine, with every version of every library."""


def open_learner(
    *,
    model: ModelSettings,
    training: TrainingSettings,
    inputs: int,
    classes: int,
    slices: int,
    device: Device = "cpu",
    shape: InputShape | None = None,
    target: str = Class.kind,
) -> Learner[Any]:
    """Return the learner for ``inputs`` features and ``classes`` outputs, in this process, on ``device``.

    ``shape`` is the form in which a network receives them; None: as a row of numbers.
    Pass the learner's states back to this learner only. Call ``fix_numerics`` first.
    """
    if model.learner != TORCH:
        arguments: Any = model.learner_arguments
        if model.learner in _CONTINUED:
            return _CONTINUED[model.learner](arguments, inputs, classes, target, training, slices)
        return _MADE_BY[model.learner](arguments, inputs, classes, target, training.seed)
    from shards.learners.torch.learner import TorchLearner  # noqa: PLC0415  it loads torch

    return TorchLearner(
        model=model,
        training=training,
        inputs=inputs,
        classes=classes,
        slices=slices,
        device=device,
        shape=shape,
        target=target,
    )


def fix_numerics(
    model: ModelSettings, threads: int, device: Device, *, probed: bool = False, kernels: str = SEPARATE
) -> NumericsProfile:
    """Fix this process's numerics for the model's learner, for good, and return the profile (E7).

    ``probed``: with the digest of fixed arithmetic, where the learner's bits depend on the machine. ``kernels``: those
    that take the steps of torch's optimizers, which the digest covers.
    """
    if LEARNERS[model.learner].is_same_anywhere:
        return _WHOLE_NUMBERS
    if model.learner != TORCH:
        return _PROFILES[model.learner](probed)
    from shards.learners.torch.probe import probe  # noqa: PLC0415  it loads torch
    from shards.learners.torch.seeding import set_numerics  # noqa: PLC0415  it loads torch

    profile = set_numerics(threads, device)
    return replace(profile, probe=probe(device, kernels)) if probed else profile


def check_fixed(model: ModelSettings, profile: NumericsProfile) -> None:
    """Raise ``Invalid`` when the user's code has changed what ``fix_numerics`` set."""
    if model.learner == TORCH:
        from shards.learners.torch.seeding import check_numerics  # noqa: PLC0415  it loads torch

        check_numerics(profile, model.factory)


def code_digest(model: ModelSettings, training: TrainingSettings) -> Sha256:
    """Return the digest of the code that decides the constituents' bytes, and what they answer.

    Of other learners than torch, arguments are part of it: some decide answers alone.
    """
    if model.learner == TORCH:
        from shards.learners.torch.model_code import model_code_digest  # noqa: PLC0415  it loads torch

        return model_code_digest(model, training)
    return digest_of({**model.record(), "version": LEARNERS[model.learner].version})
