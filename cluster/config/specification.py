"""A federation's specification: ``sisa.toml`` as frozen values, and what identifies a federation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from cluster.config.serve import ServeSettings
from cluster.config.toml import TOP, Problems, parse_file, read_table
from coordinator.settings import AggregationSettings, ErasureSettings, ReceiptSettings
from shards.learner_kinds.kinds import LEARNERS, TORCH
from shards.learner_kinds.scikit import check_estimator
from shards.learner_kinds.summation import CooccurrenceArguments
from shards.recipe.engines import REPLAY
from shards.recipe.kernels import FUSED
from shards.specification import (
    DataSettings,
    ModelSettings,
    PartitionSettings,
    TrainingSettings,
    check_class_weights,
    check_learner,
    check_loss,
    check_schedule,
)
from shards.targets import Class, Recommend, Target
from storage.digests import Json, Sha256, canonical_json, digest_of
from storage.errors import Invalid
from storage.location import PROFILE_RULE, is_on_s3, is_profile

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NICEST: Final = 19
"""The highest niceness that a system knows."""

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_PREFIX = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationSettings:
    """The settings above all tables: which federation this is and where it lives."""

    name: str
    """1 to 63 letters, digits, ``.``, ``_`` and ``-``, beginning with a letter or digit."""
    store: str
    """Folder of the federation's objects, relative to the specification's folder, or an address like ``s3://…``."""
    endpoint: str | None = None
    """Address of an S3-compatible server, such as ``http://127.0.0.1:8333``; default: AWS. Only for an S3 store."""
    keys: str | None = None
    """Folder or address of another store, for the keys of the encrypted objects; default: in the store itself.

    Keep them elsewhere so that a copy of the store alone opens nothing. Several federations may share one; to be set
    before the first training, and to stay.
    """
    credentials: str | None = None
    """Name of a profile in the AWS credentials file of each machine where the store, ``keys`` and the witness are used;
    default: what boto3 finds there. Never a key. Only for places named ``s3://…``."""

    def __post_init__(self) -> None:
        problems = []
        if not _NAME.fullmatch(self.name):
            allowed = "1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit"
            problems.append(f"name must be {allowed}, got {self.name!r}")
        if not self.store:
            problems.append("store is empty: name a folder")
        if self.keys is not None and (not self.keys or self.keys == self.store):
            problems.append("keys is empty or names the store itself: name another store, or leave it out")
        if self.endpoint is not None and not is_on_s3(self.store) and not is_on_s3(self.keys or ""):
            problems.append(
                "endpoint is the address of an S3 server: leave it out, or name the store s3://bucket/prefix"
                " (for a server of the data alone: endpoint in [data])"
            )
        if self.credentials is not None:
            problems += _credentials_problems(self)
        if problems:
            raise Invalid("; ".join(problems))


def _credentials_problems(settings: FederationSettings) -> Iterator[str]:
    """Yield what is wrong with the credentials, without quoting the setting: it may hold a key."""
    if not is_profile(settings.credentials or ""):
        yield f"credentials {PROFILE_RULE}"
    if not is_on_s3(settings.store) and not is_on_s3(settings.keys or ""):
        yield (
            "credentials is the name of a profile for an S3 server: leave it out, or name the store s3://bucket/prefix"
            " (for a server of the data alone: credentials in [data])"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """The table ``[cluster]``: which Ray cluster does the work, and how much of it a worker takes."""

    address: str = "local"
    """``local`` starts Ray on this machine, ``auto`` finds the cluster of this machine; else a Ray address."""
    cpus_per_worker: float = 1.0
    """Processors that Ray reserves for a worker; changes no result."""
    gpus_per_worker: float = 0.0
    """Accelerators that Ray reserves for a worker; with any, training runs on one (numerics profile, E7)."""
    threads_per_worker: int = 1
    """Intra-op threads of torch, 1 .. 1024; part of the numerics profile: another number gives other bits (E7)."""
    workers: int | None = None
    """Workers at once; default: as many as shards and the cluster's processors allow."""
    ingest_workers: int | None = None
    """Tasks that read data at once, a processor and ``ingest_memory_mb`` each; changes no result. 1: the process that
    writes to the store reads itself. Default: 1 below 2 GiB of data files, else as many as the cluster's processors."""
    niceness: int = 0
    """Steps by which a worker gives way to other processes, 0 .. 19, beyond the niceness that Ray gives all of its
    workers (``RAY_worker_niceness``, 15); changes no result. Default: it competes like any other worker of Ray."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of Ray's nodes, such as ``{ site = "north" }``: only nodes with all of them read data, train, answer or
    hold the coordinator, and without any the work waits. They change no result. A Ray that is started on this machine
    (``local``) has them."""

    def __post_init__(self) -> None:
        problems = []
        if not self.address:
            problems.append('address is empty: write "local", "auto" or a Ray address')
        if not 0 < self.cpus_per_worker < float("inf"):
            problems.append(f"cpus_per_worker must be above 0, got {self.cpus_per_worker}")
        if not 0 <= self.gpus_per_worker < float("inf"):
            problems.append(f"gpus_per_worker must be 0 or more, got {self.gpus_per_worker}")
        if not 1 <= self.threads_per_worker <= 1024:
            problems.append(f"threads_per_worker must be 1 .. 1024, got {self.threads_per_worker}")
        if self.workers is not None and self.workers < 1:
            problems.append(f"workers must be at least 1, got {self.workers}")
        if self.ingest_workers is not None and self.ingest_workers < 1:
            problems.append(f"ingest_workers must be at least 1, got {self.ingest_workers}")
        if not 0 <= self.niceness <= _NICEST:
            problems.append(
                f"niceness must be 0 .. {_NICEST}, got {self.niceness}: a worker may only give way to others"
            )
        problems += _label_problems(self.labels)
        if problems:
            raise Invalid("; ".join(f"[cluster] {problem}" for problem in problems))


def _label_problems(labels: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with labels, by Ray's rules for nodes: its selectors' operators would match other nodes."""
    for name, value in labels.items():
        prefix, slash, last = name.rpartition("/")
        if prefix == "ray.io":
            yield f"labels names {name!r}: what begins with ray.io/ is Ray's own, use names of yours"
        elif not _LABEL.fullmatch(last) or (slash and not _LABEL_PREFIX.fullmatch(prefix)):
            yield f"labels must be named by 1 to 63 letters, digits, '_', '.' or '-', got {name!r}"
        if not _LABEL.fullmatch(value):
            yield f"labels must have values of 1 to 63 letters, digits, '_', '.' or '-', {name!r} has {value!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationSpecification:
    """One ``sisa.toml``, or the same as values in Python: ``connect`` checks them together, as it does a file."""

    name: str
    store: str
    data: DataSettings
    training: TrainingSettings
    partition: PartitionSettings
    model: ModelSettings = field(default_factory=ModelSettings)
    aggregation: AggregationSettings = field(default_factory=AggregationSettings)
    erasure: ErasureSettings = field(default_factory=ErasureSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    folder: Path = field(default_factory=Path.cwd)
    """The file's folder, absolute, where relative paths begin; default: the current folder."""
    endpoint: str | None = None
    keys: str | None = None
    credentials: str | None = None
    receipts: ReceiptSettings = field(default_factory=ReceiptSettings)
    serve: ServeSettings = field(default_factory=ServeSettings)

    @property
    def predicted(self) -> Target:
        """What is predicted; with intervals if the learner gives some, and with as many items as it names."""
        target = replace(self.data.predicted, interval=LEARNERS[self.model.learner].interval)
        if not isinstance(target, Recommend) or self.model.learner == TORCH:
            return target
        arguments = self.model.learner_arguments
        return replace(target, top=arguments.top) if isinstance(arguments, CooccurrenceArguments) else target

    @property
    def data_endpoint(self) -> str | None:
        """Address of the server of data named ``s3://…``; None: AWS, or what boto3's own configuration says."""
        return self.data.endpoint or self.endpoint

    @property
    def data_credentials(self) -> str | None:
        """Name of the profile with which data named ``s3://…`` are read; None: what boto3 finds."""
        return self.data.credentials or self.credentials


class SettingDifference(NamedTuple):
    """A setting that two records state differently: values as JSON, ``absent`` if a record lacks it."""

    setting: str
    stored: str
    current: str


TABLES: Mapping[str, type] = {
    TOP: FederationSettings,
    "data": DataSettings,
    "model": ModelSettings,
    "training": TrainingSettings,
    "partition": PartitionSettings,
    "aggregation": AggregationSettings,
    "erasure": ErasureSettings,
    "receipts": ReceiptSettings,
    "cluster": ClusterSettings,
    "serve": ServeSettings,
}
"""Every table of ``sisa.toml`` and the class that describes it."""


SITES: Final = frozenset({"site", "sites"})
"""Tables of a federation of several sites; see ``cluster.config.sites``."""


def read_specification(path: Path) -> FederationSpecification:
    """Return what the file at ``path`` specifies.

    Raises ``Invalid`` when there is no such file, it is not UTF-8 or not TOML, or anything in it is unknown, missing,
    of the wrong type or out of range: all problems in one error, each with its line.
    """
    text, document = parse_file(path)
    if SITES.intersection(document):
        raise Invalid(
            f"{path.name} specifies several sites, and this concerns one of them",
            "Name it with --site.",
            file=str(path),
        )
    return specification_of(path, text, document)


def specification_from(settings: Mapping[str, Any] | FederationSpecification, folder: Path) -> FederationSpecification:
    """Return what settings in Python specify: the tables of ``sisa.toml`` as mappings or as settings classes.

    None leaves a setting out. Relative places, and a model's own modules, are looked for from ``folder``. Raises as
    ``read_specification`` does.
    """
    document = _plain_settings(settings)
    if isinstance(settings, FederationSpecification):
        del document["folder"]
    if SITES.intersection(document):
        raise Invalid("these settings specify several sites", "Write them to a file, and name it to connect_sites.")
    return specification_of(folder / "settings", None, document)


def _plain_settings(value: Any) -> Any:
    """Return settings as TOML would give them: dictionaries, lists, and texts for paths."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain_settings({each.name: getattr(value, each.name) for each in fields(value)})
    if isinstance(value, Mapping):
        return {str(name): _plain_settings(each) for name, each in value.items() if each is not None}
    if isinstance(value, list | tuple | range):
        return [_plain_settings(each) for each in value]
    as_list = getattr(value, "tolist", None)  # of NumPy's numbers and arrays, and of frames' columns
    if callable(as_list):
        return as_list()
    return str(value) if isinstance(value, Path) else value


def specification_of(path: Path, text: str | None, document: Mapping[str, Any]) -> FederationSpecification:
    """Return what ``document``, read from ``text`` at ``path``, specifies; raises as ``read_specification`` does."""
    problems = Problems(path, text)
    top = {name: value for name, value in document.items() if name not in TABLES}
    document = _with_recipe(document, problems)
    tables = {name: read_table(TABLES, name, document.get(name, {}), problems) for name in TABLES if name != TOP}
    federation = read_table(TABLES, TOP, top, problems)
    _check_together(tables, problems)
    problems.raise_if_any()
    folder = path.resolve().parent
    return FederationSpecification(
        name=federation.name,
        store=federation.store,
        endpoint=federation.endpoint,
        keys=federation.keys,
        credentials=federation.credentials,
        folder=folder,
        **tables,
    )


_NO_RECIPE: Final[Mapping[str, Any]] = {"epochs": 1, "batch_size": 1, "learning_rate": 1.0}
"""The values of ``[training]`` for a learner without a recipe: one pass over the data points, if it has no epochs."""


def _with_recipe(document: Mapping[str, Any], problems: Problems) -> Mapping[str, Any]:
    """Return the document with all of ``[training]``; other learners than torch take the seed, and some epochs."""
    model, training = document.get("model", {}), document.get("training", {})
    learner = model.get("learner", TORCH) if isinstance(model, dict) else TORCH
    if learner == TORCH or not isinstance(training, dict):
        return document
    usual, recipe, own = _plain_settings(TrainingSettings(**_NO_RECIPE)), dict(_NO_RECIPE), {"seed"}
    kind = LEARNERS.get(learner) if isinstance(learner, str) else None
    if kind is not None and kind.epochs is not None:
        recipe["epochs"] = training.get("epochs", kind.epochs)
        own.add("epochs")
    for setting in training.keys() & ({each.name for each in fields(TrainingSettings)} - own):
        if training[setting] != usual.get(setting):  # a recipe that is read again has all of them
            fact = f"{setting} belongs to the learner torch, learner is {learner}: leave it out"
            problems.add("training", setting, fact)
    return {**document, "training": {**training, **recipe}}


def _check_together(tables: Mapping[str, Any], problems: Problems) -> None:
    """Note settings that do not fit those of other tables."""
    training, model = tables["training"], tables["model"]
    checks = (
        ("class_weights", check_class_weights, "data"),
        ("loss", check_loss, "data"),
    )
    data, aggregation = tables["data"], tables["aggregation"]
    if None not in (training, model, tables["partition"]):
        _note(problems, "training", "epochs", lambda: check_schedule(training, tables["partition"], model))
    if None not in (data, model):
        _note(problems, "model", "learner", lambda: check_learner(model, data))
        if model.learner != TORCH:
            _note(problems, "model", "arguments", lambda: check_estimator(model.learner_arguments, data.target))
    if data is not None and aggregation is not None and aggregation.rule not in data.predicted.rules:
        fact = f"rule = {aggregation.rule!r} is not one of the target {data.target}: leave it out"
        problems.add("aggregation", "rule", fact)
    for setting, check, other in checks:
        if training is None or tables[other] is None:
            continue  # their own problems are noted
        _note(problems, "training", setting, partial(check, training, tables[other]))
    on_gpus = tables["cluster"] is not None and bool(tables["cluster"].gpus_per_worker)
    for setting, value in _OF_CPUS.items():
        if on_gpus and getattr(training, setting, None) == value:
            fact = f'{setting} = "{value}" is for CPUs, and [cluster] gpus_per_worker is above 0: leave one of them out'
            problems.add("training", setting, fact)


_OF_CPUS: Final = {"engine": REPLAY, "kernels": FUSED}
"""Values of ``[training]`` that only workers without GPUs can carry out."""


def _note(problems: Problems, table: str, setting: str, check: Callable[[], None]) -> None:
    try:
        check()
    except Invalid as error:
        problems.add(table, setting, f"{error.fact.removeprefix(f'[{table}] ')}. {error.remedy}")


def settings_record(specification: FederationSpecification) -> dict[str, Any]:
    """Return the settings that identify the federation, as plain JSON values.

    They decide which data points it holds and the bytes of its constituents. Left out are where the store is and with
    whose credentials it is reached, how much memory, which nodes and how many workers are used, how predictions are
    aggregated, and when requests are due. The record says only whether a partition key is given, never the key.
    """
    data = asdict(specification.data)
    del data["ingest_memory_mb"], data["train"], data["endpoint"], data["credentials"]
    del data["holdout"]  # it decides which data points are held; ``taken_from`` records it
    # A source may be written again in another form, or as another version of a table.
    del data["version"], data["delimiter"], data["encoding"], data["decimal"]
    del data["subject_form"]  # the state's naming says what is in force
    del data["encode"], data["label_shift"], data["label_scale"]
    data |= specification.data.label_record
    if specification.data.encode:
        data["encode"] = specification.data.encoders.record()
    if data["label"] is None:
        del data["label"]
    if data["target"] == Class.kind:
        del data["target"]  # releases before this one knew no other
    subjects = specification.data.subject_columns
    record = {
        "name": specification.name,
        "data": data | {"subject": subjects[0] if len(subjects) == 1 else subjects},
        "model": specification.model.record(),
        "training": _training_record(specification),
        "partition": {
            "shards": specification.partition.shards,
            "slices": specification.partition.slices,
            "key": "drawn" if specification.partition.key is None else "given",
        },
        "cluster": {"threads_per_worker": specification.cluster.threads_per_worker},
    }
    plain: dict[str, Any] = json.loads(json.dumps(record))  # tuples become lists, as a stored record has them
    return plain


def _training_record(specification: FederationSpecification) -> dict[str, Any]:
    """Return what of ``[training]`` the learner uses."""
    training, learner = specification.training, specification.model.learner
    if learner == TORCH:
        return training.record(specification.data.predicted)
    return {"seed": training.seed} | ({} if LEARNERS[learner].epochs is None else {"epochs": training.epochs})


def describe_difference(stored: Mapping[str, Json], current: Mapping[str, Json]) -> list[SettingDifference]:
    """Return the settings in which two records of ``settings_record`` differ, sorted by name.

    >>> describe_difference({"training": {"seed": 7}}, {"training": {"seed": 8}})
    [SettingDifference(setting='training.seed', stored='7', current='8')]
    """
    before, after = _flat(stored), _flat(current)
    return [
        SettingDifference(name, before.get(name, "absent"), after.get(name, "absent"))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _flat(record: Mapping[str, Json], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in record.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = canonical_json(value).decode("ascii")
    return flat


def bit_settings(record: Mapping[str, Any]) -> Sha256:
    """Return the digest of the settings that decide a constituent's bytes, given its data points (E8).

    Names and columns are left out, because the points' own digests cover what was read from them. Encoders are
    included, because they also decide the form of a model's input.
    """
    encode = record["data"].get("encode")
    return digest_of(
        {
            "model": record["model"],
            "training": record["training"],
            "partition": {name: record["partition"][name] for name in ("shards", "slices")},
            "classes": record["data"]["classes"],
            "scale": record["data"]["scale"],
            **({"encode": encode} if encode else {}),
            **{name: record["data"][name] for name in ("target",) if name in record["data"]},
        }
    )
