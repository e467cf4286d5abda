"""Sites with other constituents than networks, of which the part that serves leaves (``leaves = "weights"``)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.sites.federation import SiteFederation, connect_sites
from storage.errors import Invalid, ObjectMissing
from tests.doubles.user_folder import small_points
from tests.sites.near.served import served
from tests.sites.near.site_folders import COMMON, SiteFolders
from tests.sites.near.test_simulated_sites import PERSON, ask

ONE_IS_ENOUGH = "[sites]\nquorum = 1\ngrace_seconds = 60.0"
RECIPE = "epochs = 4\nbatch_size = 8\nlearning_rate = 0.1\n"
MODELS = {
    "ridge": 'learner = "ridge"',
    "naive_bayes": 'learner = "naive_bayes"',
    "certified_linear": 'learner = "certified_linear"\nguarantee = "certified"\n'
    "arguments = { norm = 4.0, clip = true, penalty = 0.1, noise = 5.0 }",
    "sklearn": 'learner = "sklearn"\narguments = { estimator = "MLPClassifier" }',
    "forest": 'learner = "forest"\narguments = { trees = 5, thresholds = "box" }',
}


def folders_of(folder: Path, model: str, *names: str) -> SiteFolders:
    """Return sites with this model, nothing trained."""
    recipe = "epochs = 4\n" if "boosting" in model or "sklearn" in model else ""
    common = COMMON.replace("arguments = { hidden = [6] }", MODELS.get(model, model)).replace(RECIPE, recipe)
    return SiteFolders(folder, names=names, common=common).fill()


def fetched(federation: SiteFederation, name: str) -> list[bytes]:
    """Return what leaves a site now."""
    link = federation.link(name)
    return [link.checkpoint(*each) for each in link.standing().checkpoints]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_it_answers_as_its_site_does(tmp_path: Path, name: str) -> None:
    """No bit of an answer depends on where it is computed, before and after an erasure, and after a withdrawal."""
    folders = folders_of(tmp_path, name, "north", "south")
    answers: dict[str, list[object]] = {"predictions": [], "weights": []}
    with connect_sites(folders.config) as federation:
        federation.train()

    def ask_both() -> None:
        for leaves, found in answers.items():
            folders.specify(each=f'leaves = "{leaves}"')
            with connect_sites(folders.config) as federation:
                found.append(ask(federation, folders))

    ask_both()
    folders.specify(each='leaves = "weights"')
    with connect_sites(folders.config) as federation:
        link = federation.link("north")
        old = link.standing().checkpoints
        assert ask(federation, folders) == answers["predictions"][0]
        federation.erase("north", subjects=[PERSON])
        gone = set(old) - set(link.standing().checkpoints)
        assert gone
        for shard, digest in gone:
            with pytest.raises(ObjectMissing, match="serves no such checkpoint"):
                link.checkpoint(shard, digest)
        carried = ask(federation, folders)
    ask_both()
    assert carried == answers["predictions"][1] != answers["predictions"][0]
    folders.specify(each='leaves = "weights"')
    with connect_sites(folders.config) as federation:
        federation.withdraw("north", "its consent has ended")
        assert [each.site for each in federation.predict(folders.folder / "asked.parquet").sites] == ["south"]
    ask_both()
    assert answers["weights"] == answers["predictions"]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_what_leaves_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    """Neither the checkpoint's arrays nor its lineage leave, and a site that lets only predictions go gives nothing."""
    folders = folders_of(tmp_path, name, "north")
    folders.specify(each='leaves = "weights"')
    with connect_sites(folders.config) as federation:
        federation.train()
        for part in fetched(federation, "north"):
            for kept in (
                b"lineage",
                b"model/",
                b"stats",
                b"left_I",
                b"gram",
                b"sums",
                b"squares",
                b"points",
                b"noise",
                b"optim",
            ):
                assert kept not in part
    folders.specify(each='leaves = "predictions"')
    with connect_sites(folders.config) as federation, pytest.raises(Invalid, match="no weights leave this site"):
        fetched(federation, "north")


def test_over_http(tmp_path: Path) -> None:
    """A site with a server of its own hands over the same bytes, and answers are the same."""
    folders = folders_of(tmp_path, "ridge", "north", "south")
    with served(folders, each='leaves = "weights"') as world:
        world.specify()
        with connect_sites(folders.config) as federation:
            federation.train()
            far, there = fetched(federation, "north"), ask(federation, folders)
        folders.specify(each='leaves = "predictions"')
        with connect_sites(folders.config) as federation:
            assert ask(federation, folders) == there
        folders.specify(each='leaves = "weights"')
        with connect_sites(folders.config) as federation:
            assert fetched(federation, "north") == far


def with_few_of_a_class(folder: Path) -> SiteFolders:
    """Return two sites, one of which has few data points of a class."""
    folders = folders_of(folder, "naive_bayes", "north", "south")
    columns = small_points(people=12)
    columns["label"] = ["a" if number % 16 else "b" for number in range(len(columns["label"]))]
    folders.write("north", columns)
    folders.write("asked", small_points(people=5))
    folders.specify(settings=ONE_IS_ENOUGH, each='leaves = "weights"')
    return folders


def test_a_site_with_few_data_points_of_a_class(tmp_path: Path) -> None:
    """Its constituents do not leave, the reason is in the answer, and the others answer."""
    folders = with_few_of_a_class(tmp_path)
    with connect_sites(folders.config) as federation:
        federation.train()
        answers = federation.predict(folders.folder / "asked.parquet")
        assert [each.site for each in answers.sites] == ["south"]
        assert "has fewer than 5 data points, which it would show" in answers.absent["north"]


def test_a_site_with_few_data_points_of_a_class_over_http(tmp_path: Path) -> None:
    """The site's server withholds them as it withholds weights that may not leave: no token changes that."""
    folders = with_few_of_a_class(tmp_path)
    with served(folders, each='leaves = "weights"') as world:
        world.specify(settings=ONE_IS_ENOUGH)
        with connect_sites(folders.config) as federation:
            federation.train()
            answers = federation.predict(folders.folder / "asked.parquet")
        crossed = world.sites["north"].boundary.crossed
    assert [each.site for each in answers.sites] == ["south"]
    assert "has fewer than 5 data points, which it would show" in answers.absent["north"]
    refused = [each for each in crossed if each.path.startswith("/v1/checkpoints/")]
    assert {(each.status, json.loads(each.answered)["error"]["kind"]) for each in refused} == {(403, "withheld")}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ('learner = "forest"', "thresholds that are values of single data points"),
        ('learner = "forest"\narguments = { thresholds = "box", min_leaf = 4 }', "leaves of fewer than 5 data points"),
        ('learner = "dirichlet_categorical"', "counts, sums or values of single data points"),
        ('learner = "boosting"', "thresholds between values of single data points"),
    ],
)
def test_others_are_refused_with_the_reason(tmp_path: Path, model: str, reason: str) -> None:
    """The specification is refused, before anything could leave; without it, predictions leave."""
    folders = folders_of(tmp_path, model, "north")
    assert folders.specification.site("north").settings.leaves == "predictions"
    folders.specify(each='leaves = "weights"')
    with pytest.raises(Invalid, match=f"leaves = 'weights', and constituents of the learner .* hold {reason}"):
        _ = folders.specification
