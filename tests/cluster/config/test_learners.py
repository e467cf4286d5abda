"""``[model] learner`` in ``sisa.toml``: what each learner takes, and what its record says."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.config.specification import bit_settings, settings_record
from shards.learner_kinds.kinds import LEARNERS
from tests.cluster.config.test_specification import GOOD, read, refusal

RECIPE = "epochs = 20\nbatch_size = 16\nlearning_rate = 0.05\n"
PLAIN = GOOD.replace(f"[training]\n{RECIPE}", "")
CLUSTERS = PLAIN.replace('label    = "label"\n', "").replace('classes  = ["0", "1"]', 'target = "cluster"')
BASKETS = CLUSTERS.replace('target = "cluster"', 'target = "recommend"').replace('["x*"]', '["x0", "x1"]')
NUMBER = PLAIN.replace('classes  = ["0", "1"]', 'target = "number"')

_OF_NUMBERS = " or ".join(name for name, kind in LEARNERS.items() if "number" in kind.targets)


def _with(model: str, text: str = PLAIN) -> str:
    return f"{text}\n[model]\n{model}\n"


def _number(learner: str, arguments: str) -> str:
    return _with(f'learner = "{learner}"\narguments = {{ {arguments} }}', NUMBER)


MISTAKES = [
    (_with('learner = "trees"'), f"[model] learner must be one of {', '.join(LEARNERS)}, got 'trees'"),
    (
        _with('learner = "certified_linear"\nguarantee = "certified"'),
        "arguments.norm must be above 0, got 0.0: declare",
    ),
    (
        _with('learner = "certified_linear"\narguments = { norm = 2 }'),
        "the learner certified_linear promises no exact erasure, only a certified one: take another learner, or set",
    ),
    (
        _with('learner = "certified_linear"\nguarantee = "certified"\narguments = { norm = 2, epsilon = 3 }'),
        "arguments.epsilon must be above 0 and at most 1, got 3.0",
    ),
    (_with('guarantee = "near"', GOOD), "[model] guarantee must be one of exact, certified, got 'near'"),
    (_with('guarantee = "certified"', GOOD), "is weaker than what the learner torch promises, which is exact: leave"),
    (_with('learner = "ridge"\nguarantee = "certified"'), "what the learner ridge promises, which is exact"),
    (
        _with('learner = "forest"\nfactory = "net:build"'),
        "[model] factory belongs to the learner torch, learner is forest",
    ),
    (_with('learner = "forest"\nfiles = ["base.pt"]'), "[model] files belongs to the learner torch"),
    (
        _with('learner = "forest"\narguments = { tree = 3 }'),
        "[model] arguments.tree is not an argument of forest; did you mean trees?",
    ),
    (_with('learner = "forest"\narguments = { trees = 1.5 }'), "arguments.trees must be a whole number, got 1.5"),
    (_with('learner = "forest"\narguments = { trees = true }'), "arguments.trees must be a whole number, got True"),
    (_with('learner = "forest"\narguments = { trees = 0 }'), "arguments.trees must be 1 .. 10000, got 0"),
    (_with('learner = "forest"\narguments = { depth = 49 }'), "arguments.depth must be 1 .. 48, got 49"),
    (_with('learner = "forest"\narguments = { thresholds = "best" }'), "thresholds must be one of pivot, box"),
    (_with('learner = "forest"\narguments = { low = 2.0 }'), "arguments.low must be below high, got 2.0 and 1.0"),
    (_with('learner = "forest"\narguments = { share = 1.5 }'), "arguments.share must be above 0 and at most 1"),
    (_with('learner = "ridge"\narguments = { penalty = 0 }'), "arguments.penalty must be above 0, got 0.0"),
    (
        _with('learner = "k_means"\narguments = { clusters = 1 }', CLUSTERS),
        "arguments.clusters must be 2 .. 10000, got 1",
    ),
    (
        _with('learner = "k_means"\narguments = { step = 0.0 }', CLUSTERS),
        "arguments.step must be 2**-16 .. 1024, got 0.0",
    ),
    (
        _with('learner = "k_means"\narguments = { balance = 1.5 }', CLUSTERS),
        "arguments.balance must be 0 .. 1, got 1.5",
    ),
    (
        _with('learner = "k_means"'),
        "learner = 'k_means' does not serve the target class, only cluster. Take torch or forest or ",
    ),
    (
        _with('learner = "k_means"', CLUSTERS.replace("target", 'label = "label"\ntarget')),
        "[data] label is of no use to the target cluster: leave it out",
    ),
    (
        _with('learner = "k_means"', CLUSTERS.replace("target", 'classes = ["0", "1"]\ntarget')),
        "[data] classes is of no use to the target cluster: leave it out",
    ),
    (
        _with('learner = "torch"', f"{CLUSTERS}\n[training]\n{RECIPE}"),
        "learner = 'torch' does not serve the target cluster, only class, number, multi_label. Take k_means.",
    ),
    (
        _with('learner = "k_means"', CLUSTERS + '[aggregation]\nrule = "majority_vote"\n'),
        "rule = 'majority_vote' is not one of the target cluster: leave it out",
    ),
    (
        _with('learner = "cooccurrence"\narguments = { top = 0 }', BASKETS),
        "arguments.top must be 1 .. 1000, got 0",
    ),
    (
        _with('learner = "cooccurrence"', BASKETS.replace("target", 'label = "label"\ntarget')),
        "[data] label is of no use to the target recommend: leave it out",
    ),
    (_with('learner = "cooccurrence"'), "learner = 'cooccurrence' does not serve the target class, only recommend."),
    (
        _with('learner = "k_means"', BASKETS),
        "learner = 'k_means' does not serve the target recommend, only cluster. Take cooccurrence.",
    ),
    (
        _with('learner = "cooccurrence"', BASKETS.replace('["x0", "x1"]', '["x*"]')),
        "features needs the name of each item for the target recommend, and no pattern: answers name them",
    ),
    (
        _with('learner = "cooccurrence"', BASKETS.replace('["x0", "x1"]', '["x0"]')),
        "features needs two or more different items for the target recommend",
    ),
    (
        _with('learner = "cooccurrence"', BASKETS + '[data.encode]\nx1 = { categories = ["a", "b"] }\n'),
        "encode x1: it becomes several features, and each one of the target recommend is an item",
    ),
    (_with('learner = "naive_bayes"\narguments = { form = "beta" }'), "arguments.form must be one of gaussian"),
    (
        _with('learner = "naive_bayes"\narguments = { form = "categorical" }'),
        "arguments.values must be 2 .. 65536 for the form categorical, got 0",
    ),
    (_with('learner = "naive_bayes"\narguments = { values = 3 }'), "values belongs to the form categorical"),
    (_with('learner = "naive_bayes"\narguments = { select = 3 }'), "select belongs to the forms that count, not to"),
    (_with('learner = "naive_bayes"\narguments = { select = -1 }'), "arguments.select must be 0 or more, got -1"),
    (
        _with('learner = "naive_bayes"', NUMBER),
        f"[model] learner = 'naive_bayes' does not serve the target number, only class. Take {_OF_NUMBERS}.",
    ),
    (_number("bayesian_linear", "alpha = 1"), "arguments.alpha must be above 1, got 1.0: the spread"),
    (_number("bayesian_linear", "interval = 1.0"), "arguments.interval must be above 0 and below 1, got 1.0"),
    (_number("beta_bernoulli", "alpha = 0"), "arguments.alpha must be above 0, got 0.0"),
    (_number("gamma_poisson", "beta = -1.0"), "arguments.beta must be above 0, got -1.0"),
    (_number("gamma_poisson", "group = 1"), "arguments.group must be true or false, got 1"),
    (_with('learner = "dirichlet_categorical"\narguments = { interval = 0 }'), "arguments.interval must be above 0"),
    (_with('learner = "dirichlet_categorical"\narguments = { alpha = 0 }'), "arguments.alpha must be above 0, got 0.0"),
    (_with('learner = "dirichlet_categorical"\narguments = { beta = 2.0 }'), "arguments.beta is not an argument of"),
    (_with('learner = "beta_bernoulli"'), "does not serve the target class, only number. Take torch or forest or"),
    (_number("bayesian_linear", "beta = 0.0"), "arguments.beta must be above 0, got 0.0"),
    (
        _with('learner = "forest"') + "[data.encode]\nx1 = { tokens = 4 }\n",
        "[model] learner = 'forest' takes a row of numbers, and x1 is an image or a sequence. Leave the column out",
    ),
    (
        _with('learner = "forest"', GOOD),
        "[training] epochs belongs to the learner torch, learner is forest: leave it out",
    ),
    (
        _with('learner = "forest"') + "[training]\nseeds = 4\n",
        "[training] seeds is not a known setting; did you mean seed?",
    ),
    (
        _with('learner = "sklearn"\narguments = { estimator = "SGDClassifier" }', NUMBER),
        "arguments.estimator = 'SGDClassifier' predicts a class, and [data] target is number. Take SGDRegressor",
    ),
    (_with('learner = "sklearn"'), "[model] arguments.estimator must be one of SGDClassifier, Perceptron"),
    (_with('learner = "boosting"\narguments = { trees = 9 }'), "arguments.trees is not an argument of boosting"),
    (_with('learner = "boosting"\narguments = { leaves = 1 }'), "arguments.leaves must be 2 .. 131072, got 1"),
    (
        _with('learner = "boosting"') + "[training]\nbatch_size = 4\n",
        "[training] batch_size belongs to the learner torch, learner is boosting: leave it out",
    ),
    (_with('learner = "boosting"') + "[training]\nepochs = 0\n", "[training] epochs must be at least 1, got 0"),
    (
        _with('learner = "boosting"') + "[training]\nepochs = 2\n",
        "[training] epochs = 2 gives some of 5 slices no epoch. Set epochs to at least 3",
    ),
]


@pytest.mark.parametrize(("text", "problem"), MISTAKES, ids=[problem for _, problem in MISTAKES])
def test_a_mistake_is_named(text: str, problem: str, tmp_path: Path) -> None:
    """With its table, its setting and what would be right."""
    assert problem in refusal(tmp_path / "sisa.toml", text)


def test_a_record_has_all_arguments_and_no_recipe(tmp_path: Path) -> None:
    """So that writing a default or leaving it out is the same, and a recipe that there is not decides nothing."""
    file = tmp_path / "sisa.toml"
    plain = settings_record(read(file, _with('learner = "ridge"')))
    assert plain["model"] == {"learner": "ridge", "arguments": {"penalty": 1.0}}
    assert plain["training"] == {"seed": 0}
    written = settings_record(read(file, _with('learner = "ridge"\narguments = { penalty = 1 }')))
    other = settings_record(read(file, _with('learner = "ridge"\narguments = { penalty = 2 }')))
    assert bit_settings(written) == bit_settings(plain) != bit_settings(other)


def test_epochs_are_recorded_where_the_learner_has_some(tmp_path: Path) -> None:
    """They say how many trees there are, and are another identity than a forest's lack of them."""
    text = _with('learner = "boosting"')
    assert settings_record(read(tmp_path / "one.toml", text))["training"] == {"seed": 0, "epochs": 100}
    fewer = read(tmp_path / "two.toml", f"{text}[training]\nepochs = 30\n")
    assert settings_record(fewer)["training"] == {"seed": 0, "epochs": 30}
    assert fewer.training.epochs == 30


def test_an_estimators_own_defaults_are_left_out_of_its_record(tmp_path: Path) -> None:
    """Writing one changes nothing; the version of scikit-learn, which decides them, is in the lineage."""
    plain = _with('learner = "sklearn"\narguments = { estimator = "Perceptron" }')
    written = _with('learner = "sklearn"\narguments = { estimator = "Perceptron", alpha = 0.0001, eta0 = 0.5 }')
    assert settings_record(read(tmp_path / "one.toml", plain))["model"]["arguments"] == {"estimator": "Perceptron"}
    found = settings_record(read(tmp_path / "two.toml", written))["model"]["arguments"]
    assert found == {"estimator": "Perceptron", "eta0": 0.5}


def test_the_usual_learner_is_left_out_of_records(tmp_path: Path) -> None:
    """Stores of releases that knew torch alone keep their records."""
    plain, named = read(tmp_path / "one.toml", GOOD), read(tmp_path / "two.toml", _with('learner = "torch"', GOOD))
    assert settings_record(plain) == settings_record(named)
    assert settings_record(plain)["model"] == {"factory": "shards.models:mlp", "arguments": {}}


@pytest.mark.parametrize("learner", sorted(LEARNERS.keys() - {"torch", "sklearn", "certified_linear"}))
def test_a_learner_needs_no_further_setting(learner: str, tmp_path: Path) -> None:
    """The defaults do, and the seed may be set."""
    texts = {"class": PLAIN, "number": NUMBER, "cluster": CLUSTERS, "recommend": BASKETS}
    text = _with(f'learner = "{learner}"', texts[LEARNERS[learner].targets[0]])
    text += "[training]\nseed = 5\n"
    assert read(tmp_path / "sisa.toml", text).training.seed == 5


def test_a_certified_learner_is_recorded_with_its_guarantee(tmp_path: Path) -> None:
    """So that a specification read from a store asks for it again."""
    text = _with('learner = "certified_linear"\nguarantee = "certified"\narguments = { norm = 2 }')
    record = settings_record(read(tmp_path / "sisa.toml", text))["model"]
    assert (record["guarantee"], record["arguments"]["norm"]) == ("certified", 2.0)
