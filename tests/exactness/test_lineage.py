"""Lineage (E8): a checkpoint is reused only if everything that decides its bytes is unchanged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.config.specification import FederationSpecification
from coordinator.engine.tasks import check_configuration
from coordinator.state import servable
from shards.learners.torch.learner import TorchState
from shards.learners.torch.seeding import set_numerics
from shards.lineage import Configuration, in_force
from shards.specification import ModelSettings, TrainingSettings
from storage.digests import sha256
from storage.errors import Conflict
from tests.doubles.federation import SmallFederation, specification_of
from tests.doubles.lineages import lineage_of
from tests.exactness.federations import checkpoints, conditions, federation_of, make_points, object_keys, retrained

_NO_PROBE = "^(?!.*probe).* under other conditions"

Change = Callable[[FederationSpecification], FederationSpecification]

ROOT = Path(__file__).parents[2]
POINTS = make_points(4, 24, classes=3)


def _specification(**training: Any) -> FederationSpecification:
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 4, "learning_rate": 0.1, "seed": 1} | training
    return specification_of(
        shards=2,
        slices=2,
        classes=("a", "b", "c"),
        training=TrainingSettings(**settings),
        model=ModelSettings(arguments={"hidden": [5]}),
    )


def _training(**changes: Any) -> Change:
    return lambda spec: replace(spec, training=replace(spec.training, **changes))


def _data(**changes: Any) -> Change:
    return lambda spec: replace(spec, data=replace(spec.data, **changes))


def _model(**changes: Any) -> Change:
    return lambda spec: replace(spec, model=replace(spec.model, **changes))


def _threads(spec: FederationSpecification) -> FederationSpecification:
    return replace(spec, cluster=replace(spec.cluster, threads_per_worker=2))


_CHANGES: dict[str, tuple[dict[str, Any], Change]] = {
    "learning_rate": ({}, _training(learning_rate=0.05)),
    "epochs": ({}, _training(epochs=5)),
    "batch_size": ({}, _training(batch_size=5)),
    "seed": ({}, _training(seed=2)),
    "weight_decay": ({}, _training(weight_decay=0.01)),
    "momentum": ({"momentum": 0.5}, _training(momentum=0.6)),
    "nesterov": ({"momentum": 0.5}, _training(nesterov=True)),
    "optimizer": ({"optimizer": "adam"}, _training(optimizer="adamw")),
    "betas": ({"optimizer": "adam"}, _training(betas=(0.8, 0.999))),
    "epsilon": ({"optimizer": "adamw"}, _training(epsilon=1e-6)),
    "optimizer_arguments": ({"optimizer": "rmsprop"}, _training(optimizer_arguments={"alpha": 0.8})),
    "schedule": ({}, _training(schedule={"kind": "cosine"})),
    "kernels": ({"optimizer": "adam"}, _training(kernels="fused")),
    "gradient_clip": ({"gradient_clip": 0.5}, _training(gradient_clip=0.1)),
    "label_smoothing": ({}, _training(label_smoothing=0.1)),
    "class_weights": ({}, _training(class_weights=(1.0, 2.0, 3.0))),
    "loss": ({}, _training(loss="tests.exactness.user_models:focal")),
    "step": ({}, _training(step="tests.exactness.user_models:mixed_up")),
    "augment": ({}, _training(augment="tests.exactness.user_models:noisy")),
    "arguments": ({}, _model(arguments={"hidden": [6]})),
    "factory": ({}, _model(factory="shards.models:logistic", arguments={})),
    "scale": ({}, _data(scale=2.0)),
    "scale of one feature": ({}, _data(scale=(1.0, 1.0, 2.0, 1.0))),
    "features": ({}, _data(features=("x0", "x1", "x2"))),
    "order of features": ({}, _data(features=("x1", "x0", "x2", "x3"))),
    "classes": ({}, _data(classes=("b", "a", "c"))),
    "one class more": ({}, _data(classes=("a", "b", "c", "d"))),
    "threads": ({}, _threads),
}


@pytest.mark.parametrize("change", _CHANGES)
def test_any_setting_that_changes_results_retrains(change: str) -> None:
    """After the change no old checkpoint is used or served, and all bytes are those of a new run."""
    training, changed = _CHANGES[change]
    federation = federation_of(_specification(**training))
    federation.train(POINTS)
    before, slices = federation.state, federation.pool.slices_learned
    federation.respecify(changed(federation.specification))
    federation.train(POINTS)
    old = {checkpoint.key for shard in before.shards for checkpoint in shard.chain}
    assert not old & object_keys(federation.state)
    assert not old & {info.key for info in federation.store.list("")}
    assert federation.pool.slices_learned == 2 * slices
    assert federation.state.floor > before.generation
    assert checkpoints(federation) == checkpoints(retrained(federation.specification, POINTS))


def test_nothing_changed_trains_nothing() -> None:
    """Training again with the same settings and points in another order trains no slice and keeps every object."""
    federation = federation_of(_specification())
    federation.train(POINTS)
    before, slices = federation.state, federation.pool.slices_learned
    assert before.data is not None
    for points in (POINTS, POINTS[::-1], None):
        federation.restart()
        federation.train(points)
        after = federation.state
        assert after.data is not None
        # The source is another one when its order is: only what is recorded of its content may differ.
        assert replace(after, data=replace(after.data, inventory=before.data.inventory)) == before
    assert federation.pool.slices_learned == slices
    assert {key for key in federation_keys(federation) if key.startswith("shards/")} == set(object_keys(before))


def test_settings_that_change_no_result_keep_everything() -> None:
    """Changed names, places, deadlines and numbers of processors keep all checkpoints in use."""
    federation = federation_of(_specification())
    federation.train(POINTS)
    before = federation.state
    spec = federation.specification
    other = replace(
        spec,
        store="elsewhere",
        data=replace(spec.data, ingest_memory_mb=300),
        erasure=replace(spec.erasure, deadline_days=10),
        cluster=replace(spec.cluster, cpus_per_worker=2.0, workers=1),
    )
    federation.respecify(other)
    federation.train(POINTS)
    assert [shard.chain for shard in federation.state.shards] == [shard.chain for shard in before.shards]


@pytest.mark.parametrize("change", ["learning_rate", "scale", "threads"])
def test_nothing_is_served_between_a_change_and_the_new_training(change: str) -> None:
    """The new configuration withdraws every old constituent: all shards abstain until new ones are published."""
    training, changed = _CHANGES[change]
    federation = federation_of(_specification(**training))
    federation.train(POINTS)
    generation = federation.state.generation
    federation.respecify(changed(federation.specification))
    federation.engine.configure({"data": {"scale": 1.0}}, conditions(federation.specification))
    assert servable(federation.state) == ()
    assert federation.state.floor == federation.state.generation == generation + 1


def test_an_added_or_changed_point_keeps_only_checkpoints_without_it() -> None:
    """A point that changes in the source retrains its shard from its slice on, and nothing else."""
    federation = federation_of(_specification())
    federation.train(POINTS)
    before = federation.state
    changed = [replace(POINTS[0], features=(9.0, 9.0, 9.0, 9.0)), *POINTS[1:]]
    federation.train(changed)
    hit = POINTS[0].slice_id(2, 2)
    for number, (was, now) in enumerate(zip(before.shards, federation.state.shards, strict=True)):
        kept = hit.slice - 1 if number == hit.shard else 2
        assert now.chain[:kept] == was.chain[:kept]
        assert all(old.lineage != new.lineage for old, new in zip(was.chain[kept:], now.chain[kept:], strict=True))
    assert checkpoints(federation) == checkpoints(retrained(federation.specification, changed))


def test_the_number_of_threads_is_part_of_the_profile() -> None:
    """One and two intra-op threads are different profiles, which differ in nothing else (E7)."""
    one, two = set_numerics(1, "cpu"), set_numerics(2, "cpu")
    assert (one.threads, two.threads) == (1, 2)
    assert replace(two, threads=1) == one


def _other_torch(configuration: Configuration) -> Configuration:
    return replace(configuration, profile=replace(configuration.profile, torch="1.0", device="cpu/other"))


def _probed(name: bytes) -> Callable[[Configuration], Configuration]:
    return lambda found: replace(found, profile=replace(found.profile, probe=sha256(name)))


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (_other_torch, r"torch: .* then, 1\.0 now; device: .* then, cpu/other now"),
        (lambda found: replace(found, profile=replace(found.profile, threads=8)), "threads: 1 then, 8 now"),
        (_probed(b"other"), r"results of the same arithmetic \(probe: .{12} then, .{12} now\), which .*MKL_CBWR"),
        (lambda found: replace(found, model_code=found.settings), "the model's source code"),
        (lambda found: replace(found, settings=found.model_code), "model or training settings"),
        (
            lambda found: _probed(b"other")(replace(found, settings=found.model_code)),
            r"other conditions: model or training settings\. Go back",
        ),
        (lambda found: replace(found, seed=77), "seed"),
    ],
    ids=["torch and device", "threads", "probe", "model code", "settings", "kernels, which are probed", "seed"],
)
def test_other_conditions_are_named(other: Callable[[Configuration], Configuration], text: str) -> None:
    """Workers that would produce different bits are refused, and the error says what differs."""
    trained = _probed(b"one")(conditions(_specification()))
    check_configuration(trained, trained)
    check_configuration(None, trained)
    with pytest.raises(Conflict, match=text):
        check_configuration(trained, other(trained))


def test_fields_that_an_earlier_release_lacks_are_not_compared() -> None:
    """A configuration without a probe stays in force, with its digest, until a recorded field differs (E16)."""
    stored = conditions(_specification())
    present = _probed(b"one")(stored)
    assert in_force(stored, present) is stored
    assert in_force(None, present) is present
    check_configuration(stored, present)
    for other in (_other_torch(present), replace(present, seed=77), replace(present, model_code=present.settings)):
        assert in_force(stored, other) is other
        with pytest.raises(Conflict, match=_NO_PROBE):
            check_configuration(stored, other)
    assert in_force(present, present) == present
    assert in_force(present, _probed(b"other")(stored)) == _probed(b"other")(stored)
    assert in_force(present, stored) == stored  # not in the other direction: recorded fields are compared


def test_the_probe_is_part_of_the_lineage_if_there_is_one() -> None:
    """A lineage without a probe has the same digest as in releases without probes."""
    old = lineage_of()
    assert old.digest() == "31b1eddae45ad982c391b69bb9448a1d6a2efa64eda83d8bd7ae62b462e82844"
    digests = {replace(old, configuration=_probed(name)(old.configuration)).digest() for name in (b"one", b"other")}
    assert len({old.digest(), *digests}) == 3


def test_other_torch_alone_is_named() -> None:
    """If the rest of the profile differs, the probe, which then differs too, is not mentioned."""
    stored = _probed(b"one")(conditions(_specification()))
    with pytest.raises(Conflict, match=_NO_PROBE):
        check_configuration(stored, _probed(b"other")(_other_torch(stored)))


def test_a_manifest_is_named_only_if_the_rest_is_equal() -> None:
    """Workers do not compute the code manifest if anything else differs, so it is not reported as a difference."""
    present = _probed(b"one")(conditions(_specification()))
    stored = replace(present, code_manifest=sha256(b"manifest"))
    with pytest.raises(Conflict, match="under other conditions: the model's modules, the packages"):
        check_configuration(stored, present)
    for other in (_probed(b"other")(present), _other_torch(present), replace(present, seed=77)):
        with pytest.raises(Conflict, match="^(?!.*modules).* under other conditions"):
            check_configuration(stored, other)


def test_erasing_under_other_numerics_is_refused() -> None:
    """An erasure whose workers have another number of threads stops before training, and continues with the old one."""
    federation = federation_of(_specification())
    federation.train(POINTS)
    federation.respecify(_threads(federation.specification))
    with pytest.raises(Conflict, match="threads: 1 then, 2 now"):
        federation.erase(subjects=[POINTS[0].subject], request_id="er-1")
    assert not federation.state.published
    federation.respecify(_specification())
    federation.engine.settle()
    assert checkpoints(federation) == checkpoints(
        retrained(_specification(), [point for point in POINTS if point.subject != POINTS[0].subject])
    )


def federation_keys(federation: SmallFederation[TorchState]) -> set[str]:
    """Return the names of all objects in the federation's store."""
    return {info.key for info in federation.store.list("")}


_NET = """
from torch import nn
{imports}

def net(inputs, classes):
    {body}
    return nn.Sequential(nn.Linear(inputs, WIDTH), nn.Tanh(), nn.Linear(WIDTH, classes))
"""

_WAYS = {
    "by_name": ("from by_name_widths import WIDTH", "pass"),
    "as_a_module": ("import as_a_module_widths\nWIDTH = as_a_module_widths.WIDTH", "pass"),
    "everything": ("from everything_widths import *", "pass"),
    "inside_the_factory": ("", "from inside_the_factory_widths import WIDTH"),
    "through_another": ("from through_another_between import WIDTH", "pass"),
    "from_a_package": ("from from_a_package.widths import WIDTH", "pass"),
    "relative": ("from relative.net import inner, WIDTH", "pass"),
}
"""Ways in which a model's module may import a constant of another module."""


_DIGESTS = """
import json, os, sys
from shards.learners.torch.factory import build_model
from shards.learners.torch.model_code import model_code_digest
from shards.specification import ModelSettings, TrainingSettings

for folder in json.loads(sys.argv[1]):
    if os.fork() == 0:
        sys.path.insert(0, folder)
        found = {}
        for way in sys.argv[2:]:
            settings = ModelSettings(factory=f"{way}_net:net")
            build_model(settings, 4, 2)
            found[way] = model_code_digest(settings, TrainingSettings(epochs=1, batch_size=1, learning_rate=1.0))
        print(json.dumps(found), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


def _digests_in_new_processes(folders: list[Path]) -> list[dict[str, str]]:
    """Return the models' code digests in each folder, computed in a process that has not imported any of them."""
    command = [sys.executable, "-B", "-c", _DIGESTS, json.dumps(list(map(str, folders))), *_WAYS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()]


def _written(folder: Path, width: int) -> Path:
    folder.mkdir()
    for way, (imports, body) in _WAYS.items():
        (folder / f"{way}_net.py").write_text(_NET.format(imports=imports, body=body), encoding="utf-8")
        (folder / f"{way}_widths.py").write_text(f"WIDTH = {width}\n", encoding="utf-8")
    (folder / "through_another_between.py").write_text("from through_another_widths import WIDTH\n", encoding="utf-8")
    for package in ("from_a_package", "relative"):
        (folder / package).mkdir(exist_ok=True)
        (folder / package / "widths.py").write_text(f"WIDTH = {width}\n", encoding="utf-8")
    inner = "from .widths import WIDTH\ndef inner():\n    return WIDTH\n"
    (folder / "relative" / "net.py").write_text(inner, encoding="utf-8")
    return folder


@pytest.mark.slow
def test_model_code_on_disk_names_what_it_imports(tmp_path: Path) -> None:
    """Another module that a model imports in any way changes the digest; an equal one beside others does not."""
    folders = [_written(tmp_path / name, width) for name, width in (("first", 5), ("changed", 6), ("again", 5))]
    (folders[-1] / "unused.py").write_text("WIDTH = 9\n", encoding="utf-8")
    first, changed, again = _digests_in_new_processes(folders)
    assert [way for way in _WAYS if first[way] == changed[way]] == []
    assert again == first


def test_other_model_code_retrains() -> None:
    """With another digest of the model's code no checkpoint is reused."""
    federation = federation_of(_specification())
    federation.train(POINTS)
    before, slices = object_keys(federation.state), federation.pool.slices_learned
    plain = federation.conditions
    federation.pool.conditions = federation.conditions = lambda width: replace(
        plain(width), model_code=plain(width).settings
    )
    federation.restart()
    federation.train(None)
    parts = {part.key for shard in federation.state.shards for record in shard.slices for part in record.parts}
    assert before & object_keys(federation.state) == parts
    assert federation.pool.slices_learned == 2 * slices
