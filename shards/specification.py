"""What a federation is trained on and how: the settings that decide the constituents' bytes.

Each class is one table of ``sisa.toml``. ``__post_init__`` raises ``Invalid`` with every problem of the table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import PurePosixPath
from typing import Any, Final, NewType

from shards.csv_form import CsvForm
from shards.encoders import ImageEncoder, TokensEncoder
from shards.encoding import Encoding, InputShape, encoding_of
from shards.learner_kinds.admissible import Admissible
from shards.learner_kinds.guarantees import ASKED, Guarantee, guarantee_problem
from shards.learner_kinds.kinds import (
    LEARNERS,
    TORCH,
    LearnerArguments,
    arguments_record,
    learner_problems,
    read_arguments,
)
from shards.recipe.engines import AUTO, engine_problems
from shards.recipe.kernels import SEPARATE, kernels_problems
from shards.recipe.learning_rate import schedule_problems
from shards.recipe.optimizers import OPTIMIZERS, argument_problems, belongs_to
from shards.schedule import minimum_epochs
from shards.subjects import FORMS, SubjectForm
from shards.targets import TARGETS, Class, Cluster, Number, Recommend, Target
from storage.errors import Invalid
from storage.location import PROFILE_RULE, is_on_s3, is_profile

ShardId = NewType("ShardId", int)
"""0 .. S-1."""

SliceIndex = NewType("SliceIndex", int)
"""1 .. R; 0 stands for "before the first slice"."""

SHIPPED_FACTORIES = "shards.models"
"""The module of the factories that come with this system."""

_USUAL_FACTORY: Final = f"{SHIPPED_FACTORIES}:mlp"

CROSS_ENTROPY: Final = "cross_entropy"
_LOSSES: Final = tuple(loss for target in TARGETS.values() for loss in target.losses)
_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_RUNNING: Final = "__main__:"
_OF_RUNNING: Final = (
    "names code of a notebook or of the running program, which workers cannot import: put it into a file such as"
    " my_model.py"
)
_ADAMW_WEIGHT_DECAY = 0.01


def refuse_settings(table: str, problems: list[str]) -> None:
    """Raise ``Invalid`` if there are ``problems`` with the settings of ``table``."""
    if problems:
        raise Invalid("; ".join(f"[{table}] {problem}" for problem in problems))


_UNSCALED: Final = {"label_shift": 0.0, "label_scale": 1.0}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """The table ``[data]``: where data points come from and what is declared about them."""

    train: str
    """File, folder or glob of Parquet, Arrow or CSV files; relative to the specification's folder, or ``s3://…``."""
    id: str
    """Column that names each data point; unique."""
    label: str | tuple[str, ...] | None = None
    """Column of the class; for other targets the column of the number, or a list of columns; none for ``cluster`` and
    ``recommend``."""
    features: tuple[str, ...]
    """Columns or globs, in order, or one fixed-size-list column."""
    classes: tuple[str, ...] = ()
    """The label set of the target ``class``, declared and never learned (E6); two or more."""
    target: str = Class.kind
    """What is predicted: a ``class``, a ``number`` (or several), or ``multi_label``, any of several labels at once,
    each a column of 0 and 1 or false and true; or a ``cluster``, which needs no labels; or what
    to ``recommend``: data points are baskets, and features the items that may be in them."""
    label_shift: float | tuple[float, ...] = 0.0
    """For the target ``number``: models learn ``(label - label_shift) / label_scale``, and answers and measures are in
    the label's own unit. One constant for all labels, or one per label."""
    label_scale: float | tuple[float, ...] = 1.0
    """See ``label_shift``; above 0."""
    subject: str | tuple[str, ...] | None = None
    """Column of the person whose data point it is; default: the id column. Several columns when a data point belongs to
    several people: it is erased with any of them. The first column decides the slice; the other cells may be empty."""
    subject_form: SubjectForm | None = None
    """Which spellings of a subject are one person: ``trimmed`` (NFC, without outer white space and invisible
    characters), or ``casefold``, ``email``, ``phone``, ``integer``, ``exact``. Fixed when the federation is created;
    default: the form it was created with, and ``trimmed`` for a new one."""
    scale: float | tuple[float, ...] = 1.0
    """Constant by which features are divided: one for all, or one per feature."""
    encode: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """How columns that are not plain numbers become features: by column or glob of columns, what it declares (see
    ``shards.encoders``). Constants only; nothing here can look at data."""
    holdout: float | str | None = None
    """Data points that are never trained on and serve to measure the ensemble: the share of subjects, above 0 and below
    1, drawn by the keyed digest of each subject's name; or a file, folder or glob of its own with the same columns."""
    ingest_memory_mb: int = 512
    """Most memory (MiB) that ingest may take; changes no result. At least 256, and 320 for data in a bucket."""
    endpoint: str | None = None
    """Address of the S3-compatible server of data named ``s3://…``; default: the federation's ``endpoint``."""
    credentials: str | None = None
    """Name of the AWS profile with which data named ``s3://…`` are read; default: the federation's ``credentials``."""
    delimiter: str = ","
    """Delimiter between the cells of a CSV file, such as ``;`` or ``\\t``. This and the two settings below hold for all
    CSV files that the federation reads, and are not part of its identity: a source may be rewritten in another form."""
    encoding: str = "utf-8"
    """Encoding of CSV files, by a name that Python knows, such as ``cp1252``, ``latin-1`` or ``utf-16``."""
    decimal: str = "."
    """Decimal mark of the numbers in CSV files, ``.`` or ``,``."""
    version: int | None = None
    """Version of the Delta table that ``train`` names; default: the current one. Not part of the identity either."""

    def __post_init__(self) -> None:
        problems = []
        if self.version is not None and self.version < 0:
            problems.append(f"version must be 0 or more, got {self.version}")
        if not self.train:
            problems.append("train is empty: name a file, a folder or a glob")
        if not self.features:
            problems.append("features is empty: name the feature columns")
        problems += self._target_problems()
        if twice := sorted({name for name in self.classes if self.classes.count(name) > 1}):
            problems.append(f"classes names {', '.join(map(repr, twice))} more than once")
        problems += self._subject_problems()
        if self.subject_form is not None and self.subject_form not in FORMS:
            problems.append(f"subject_form must be one of {', '.join(FORMS)}, got {self.subject_form!r}")
        problems += self._holdout_problems()
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if not all(math.isfinite(value) and value != 0 for value in scales):
            problems.append("scale must be finite and not zero")
        is_remote = is_on_s3(self.train) or (isinstance(self.holdout, str) and is_on_s3(self.holdout))
        least_mb = 320 if is_remote else 256
        if self.ingest_memory_mb < least_mb:
            problems.append(f"ingest_memory_mb must be at least {least_mb}, got {self.ingest_memory_mb}")
        if self.credentials is not None and not is_profile(self.credentials):
            problems.append(f"credentials {PROFILE_RULE}")
        problems += self.csv.problems()
        problems += self._encoding_problems()
        refuse_settings("data", problems)
        if isinstance(self.subject, tuple) and len(self.subject) == 1:
            object.__setattr__(self, "subject", self.subject[0])

    def _target_problems(self) -> list[str]:
        if self.target not in TARGETS:
            return [f"target must be one of {', '.join(TARGETS)}, got {self.target!r}"]
        constants = {"label_shift": self.label_shift, "label_scale": self.label_scale}
        if self.target != Number.kind and constants != _UNSCALED:
            return [f"label_shift and label_scale belong to the target {Number.kind}: leave them out"]
        if not TARGETS[self.target].has_labels:
            given = [name for name in ("label", "classes") if getattr(self, name)]
            return [f"{name} is of no use to the target {self.target}: leave it out" for name in given]
        if self.label is None:
            return ["label is missing: text or a list of texts is needed"]
        if TARGETS[self.target].has_classes:
            problems = [] if len(self.classes) > 1 else [f"classes needs two or more, got {len(self.classes)}"]
            return problems + ["label is one column for the target class"] * isinstance(self.label, tuple)
        labels = self.label_columns
        problems = ["classes belong to the target class: leave them out"] * bool(self.classes)
        if not labels or len(set(labels)) < len(labels):
            problems.append("label is an empty list, or names a column twice")
        for name, value in constants.items():
            if isinstance(value, tuple) and len(value) != len(labels):
                problems.append(
                    f"{name} has {len(value)} constants for {len(labels)} labels: give one for all or for each"
                )
            values = value if isinstance(value, tuple) else (value,)
            if not all(math.isfinite(each) and (each > 0 or name == "label_shift") for each in values):
                problems.append(f"{name} must be finite{' and above 0' if name == 'label_scale' else ''}")
        return problems + [
            f"label names {name!r}, which is the id or a subject column"
            for name in labels
            if name in {self.id, *self.subject_columns}
        ]

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns of labels."""
        if self.label is None:
            return ()
        return self.label if isinstance(self.label, tuple) else (self.label,)

    @property
    def predicted(self) -> Target:
        """What is predicted, with the names of its outputs."""
        if self.target == Number.kind:
            return Number(self.label_columns, self.label_shift, self.label_scale)
        if self.target == Cluster.kind:
            return Cluster()
        if self.target == Recommend.kind:
            return Recommend(self.features)
        kind = TARGETS[self.target]
        return kind(self.classes if kind.has_classes else self.label_columns)

    @property
    def label_record(self) -> dict[str, Any]:
        """The constants of labels, if there are any, in the form of records."""
        if (self.label_shift, self.label_scale) == (0.0, 1.0):
            return {}
        constants = (("label_shift", self.label_shift), ("label_scale", self.label_scale))
        return {name: list(value) if isinstance(value, tuple) else value for name, value in constants}

    def _holdout_problems(self) -> list[str]:
        if isinstance(self.holdout, str):
            if _is_number(self.holdout):
                return [f"holdout is the text {self.holdout!r}: write a share without quotation marks"]
            return [] if self.holdout else ["holdout is empty: name a share, or a file, a folder or a glob"]
        if self.holdout is None or 0 < self.holdout < 1:
            return []
        return [f"holdout must be a share above 0 and below 1, or a text, got {self.holdout}"]

    @property
    def held_out_share(self) -> float:
        """The share of the subjects in ``train`` that are held out."""
        return self.holdout if isinstance(self.holdout, float) else 0.0

    @property
    def held_out_source(self) -> str | None:
        """The file, folder or glob of hold-out points; None: they come from ``train``, or there are none."""
        return self.holdout if isinstance(self.holdout, str) else None

    def _subject_problems(self) -> list[str]:
        if not isinstance(self.subject, tuple):
            return []
        problems = []
        if not all(self.subject) or not self.subject:
            problems.append("subject is an empty list, or has an empty name in it: name columns, or leave it out")
        if twice := sorted({name for name in self.subject if self.subject.count(name) > 1}):
            problems.append(f"subject names {', '.join(map(repr, twice))} more than once")
        if self.id in self.subject and len(self.subject) > 1:
            problems.append(
                f"subject names the id column, {self.id!r}, and other columns: a person and a data point of the same"
                " name would be one subject"
            )
        return problems

    def _encoding_problems(self) -> list[str]:
        encoding, problems = encoding_of(self.encode)
        for name in (self.id, *self.label_columns, *self.subject_columns):
            if name in self.encode:
                problems.append(f"encode {name}: it is the id, subject or label column, which is not a feature")
        are_images = all(isinstance(each, ImageEncoder) for each in encoding.encoders.values())
        if encoding and self.scale != 1.0 and not are_images:
            problems.append(
                "scale together with encode would also divide the encoded features: give number columns a scale of"
                " their own in [data.encode]"
            )
        return problems

    @property
    def encoders(self) -> Encoding:
        """What ``encode`` declares."""
        return encoding_of(self.encode)[0]

    @property
    def input_shape(self) -> InputShape | None:
        """The form of a model's input if it is not simply a row of numbers."""
        return self.encoders.shape(self.features)

    @property
    def csv(self) -> CsvForm:
        """The form of its CSV files."""
        return CsvForm(delimiter=self.delimiter, encoding=self.encoding, decimal=self.decimal)

    @property
    def subject_columns(self) -> tuple[str, ...]:
        """All subject columns, the one that decides the slice first."""
        named = self.subject or self.id
        return named if isinstance(named, tuple) else (named,)

    @property
    def subject_column(self) -> str:
        """The subject column that decides the slice."""
        return self.subject_columns[0]

    @property
    def further_subjects(self) -> tuple[str, ...]:
        """The subject columns that do not decide the slice."""
        return self.subject_columns[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The table ``[model]``: the kind of the constituents."""

    factory: str = _USUAL_FACTORY
    """Import path ``module:callable``; the callable returns a ``torch.nn.Module``. Of the learner torch alone."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments for the factory; ``inputs`` and ``classes`` are added where it takes them. Of other learners:
    their own arguments (``shards.learner_kinds``)."""
    files: tuple[str, ...] = ()
    """Files that the model's code reads, such as pretrained weights, or folders of such files; relative to the
    specification's folder. The model may read no others."""
    learner: str = TORCH
    """How a constituent learns: ``torch``, or a learner that comes with this system (``shards.learner_kinds``)."""
    guarantee: str = ASKED[0]
    """The guarantee that erasures must have: ``exact``, or ``certified`` for learners that promise no more."""

    def __post_init__(self) -> None:
        of_torch = [name for name in ("factory", "files") if getattr(self, name) not in {_USUAL_FACTORY, ()}]
        problems = learner_problems(self.learner, self.arguments, self.guarantee, of_torch)
        if not problems and (refused := guarantee_problem(self.learner, self.promise, self.guarantee)):
            problems.append(refused)
        for name in self.files:
            path = PurePosixPath(name)
            if not path.parts or path.is_absolute() or ".." in path.parts:
                problems.append(f"files must be names relative to the specification's folder and in it, got {name!r}")
        if not _CALLABLE.fullmatch(self.factory):
            problems.append(f"factory must read 'module:callable', got {self.factory!r}")
        elif self.factory.startswith(_RUNNING):
            problems.append(f"factory {_OF_RUNNING}")
        refuse_settings("model", problems)

    @property
    def is_whole(self) -> bool:
        """Whether all slices of a shard are learned at once."""
        return LEARNERS[self.learner].whole

    @property
    def promise(self) -> Guarantee:
        """What the learner promises about erased data points."""
        return LEARNERS[self.learner].promise(None if self.learner == TORCH else self.learner_arguments)

    @property
    def admitted(self) -> Admissible:
        """The features and labels that the learner accepts."""
        return LEARNERS[self.learner].admits(None if self.learner == TORCH else self.learner_arguments)

    @property
    def recorded_learner(self) -> str | None:
        """The learner in the form of records: None for torch, which the first releases did not name."""
        return None if self.learner == TORCH else self.learner

    @property
    def learner_arguments(self) -> LearnerArguments:
        """The arguments of a learner other than torch."""
        made, _ = read_arguments(self.learner, self.arguments)
        assert made is not None
        return made

    def record(self) -> dict[str, Any]:
        """Return the settings as a record has them."""
        if self.learner != TORCH:
            own: dict[str, Any] = {"learner": self.learner, "arguments": arguments_record(self.learner, self.arguments)}
            return own | ({} if self.guarantee == ASKED[0] else {"guarantee": self.guarantee})
        own = {"factory": self.factory, "arguments": dict(self.arguments)}
        return own | ({"files": self.files} if self.files else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """The table ``[training]``: how a constituent learns."""

    epochs: int
    """e': the epochs one would use without slicing."""
    batch_size: int
    """Data points per step."""
    learning_rate: float
    """Step size, as ``schedule`` scales it."""
    optimizer: str = "sgd"
    """One of those in ``shards.recipe.optimizers``, named as in ``torch.optim``."""
    seed: int = 0
    """Seed of all random streams; 0 .. 2**63 - 1."""
    momentum: float = 0.0
    """sgd and rmsprop only."""
    nesterov: bool = False
    """sgd with momentum only."""
    weight_decay: float | None = None
    """Default: 0, and 0.01 for adamw."""
    betas: tuple[float, float] = (0.9, 0.999)
    """adam, adamw, adamax, nadam and radam only."""
    epsilon: float = 1e-8
    """All but sgd."""
    optimizer_arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Further arguments of the optimizer, by their names in torch, such as ``{ alpha = 0.9 }`` of rmsprop."""
    loss: str | None = None
    """``cross_entropy`` for classes; ``mse``, ``mae`` or ``huber`` for numbers; ``bce`` for ``multi_label``; or
    ``module:callable``: called with the model's outputs and the labels of a batch, it returns the mean loss. Default:
    the first of those that the target has."""
    label_smoothing: float = 0.0
    """Share of each label that cross_entropy spreads over all classes; 0 to below 1."""
    class_weights: tuple[float, ...] | None = None
    """Weight of each class in cross_entropy, in the order of ``classes``; default: all equal. Declared, not learned."""
    gradient_clip: float | None = None
    """Largest norm of all gradients together; longer ones are scaled down. Default: no limit."""
    schedule: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """How the learning rate changes, such as ``{ kind = "cosine", warmup = 0.05 }``; see ``Schedule``. Default: not."""
    augment: str | None = None
    """``module:callable``: from a batch's features and a generator, features of the same shape to learn from."""
    step: str | None = None
    """``module:callable`` in place of ``loss``: from model, features of a batch, labels and a generator, the loss."""
    engine: str = AUTO
    """How the steps of torch are carried out, which changes no result: see ``shards.recipe.engines``."""
    kernels: str = SEPARATE
    """Which kernels of torch take the optimizer's step, ``separate`` or ``fused``: see ``shards.recipe.kernels``."""

    def __post_init__(self) -> None:
        problems = []
        if self.epochs < 1:
            problems.append(f"epochs must be at least 1, got {self.epochs}")
        if self.batch_size < 1:
            problems.append(f"batch_size must be at least 1, got {self.batch_size}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            problems.append(f"learning_rate must be above 0, got {self.learning_rate}")
        if not 0 <= self.seed < 2**63:
            problems.append(f"seed must be 0 .. 2**63 - 1, got {self.seed}")
        problems += self._optimizer_problems() + self._loss_problems()
        if self.gradient_clip is not None and not (math.isfinite(self.gradient_clip) and self.gradient_clip > 0):
            problems.append(f"gradient_clip must be above 0, got {self.gradient_clip}")
        problems += schedule_problems(self.schedule) + engine_problems(self.engine)
        refuse_settings("training", problems)

    def _optimizer_problems(self) -> list[str]:
        if self.optimizer not in OPTIMIZERS:
            return [f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}"]
        settings, _ = OPTIMIZERS[self.optimizer]
        problems = [
            f"{item.name} belongs to {belongs_to(item.name)}, optimizer is {self.optimizer}"
            for item in fields(self)
            if item.name in _OF_OPTIMIZERS - settings and getattr(self, item.name) != item.default
        ]
        if not 0 <= self.momentum < 1:
            problems.append(f"momentum must be in [0, 1), got {self.momentum}")
        if self.nesterov and not self.momentum:
            problems.append("nesterov needs momentum above 0")
        if self.weight_decay is not None and not 0 <= self.weight_decay < math.inf:
            problems.append(f"weight_decay must be 0 or more, got {self.weight_decay}")
        if not all(0 <= beta < 1 for beta in self.betas):
            problems.append(f"betas must be in [0, 1), got {list(self.betas)}")
        if not 0 < self.epsilon < math.inf:
            problems.append(f"epsilon must be above 0, got {self.epsilon}")
        problems += kernels_problems(self.kernels, self.optimizer)
        return problems + argument_problems(self.optimizer, self.optimizer_arguments)

    def _loss_problems(self) -> list[str]:
        problems = []
        if self.loss is not None and self.loss not in _LOSSES and not _CALLABLE.fullmatch(self.loss):
            problems.append(f"loss must be one of {', '.join(_LOSSES)} or read 'module:callable', got {self.loss!r}")
        for name in ("augment", "step"):
            path = getattr(self, name)
            if path is not None and not _CALLABLE.fullmatch(path):
                problems.append(f"{name} must read 'module:callable', got {path!r}")
        for name, path in self.code.items():
            if path.startswith(_RUNNING):
                problems.append(f"{name} {_OF_RUNNING}")
        if not 0 <= self.label_smoothing < 1:
            problems.append(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")
        if self.class_weights is not None and not all(0 < weight < math.inf for weight in self.class_weights):
            problems.append(f"class_weights must be above 0, got {list(self.class_weights)}")
        if self.step is not None and self.loss is not None:
            problems.append("step computes the loss itself: leave out loss")
        is_other = self.step is not None or self.loss not in {None, CROSS_ENTROPY}
        if is_other and (self.label_smoothing or self.class_weights):
            problems.append("label_smoothing and class_weights belong to the loss cross_entropy")
        return problems

    @property
    def effective_weight_decay(self) -> float:
        """The weight decay in force."""
        if self.weight_decay is not None:
            return self.weight_decay
        return _ADAMW_WEIGHT_DECAY if self.optimizer == "adamw" else 0.0

    @property
    def code(self) -> dict[str, str]:
        """The user's callables that training runs, as ``module:callable``, by the setting that names them."""
        named = {"loss": self.loss, "augment": self.augment, "step": self.step}
        return {setting: path for setting, path in named.items() if path is not None and ":" in path}

    def record(self, target: Target) -> dict[str, Any]:
        """Return the settings in the form of records: those that 0.1 did not know only if they are set (E16)."""
        values = {name: value for name, value in asdict(self).items() if name != "engine"}  # which changes no result
        if self.loss == target.losses[0]:
            values["loss"] = None
        for item in fields(self)[_KNOWN_TO_0_1:]:
            usual = item.default if item.default_factory is MISSING else item.default_factory()
            if values.get(item.name) == usual:
                del values[item.name]
        return values | {"weight_decay": self.effective_weight_decay}


_OF_OPTIMIZERS: Final = frozenset({"momentum", "nesterov", "betas", "epsilon"})
_KNOWN_TO_0_1: Final = [item.name for item in fields(TrainingSettings)].index("optimizer_arguments")


def is_shipped(model: ModelSettings, training: TrainingSettings) -> bool:
    """Return whether all code of the model and its training comes with this system."""
    return model.factory.partition(":")[0] == SHIPPED_FACTORIES and not training.code


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionSettings:
    """The table ``[partition]``: how many shards and slices, and the secret key that decides where a subject goes."""

    shards: int
    """S."""
    slices: int
    """R."""
    key: str | None = field(default=None, repr=False)
    """Secret partition key, 16 to 64 bytes as hexadecimal; default: drawn once and kept in the store."""

    def __post_init__(self) -> None:
        problems = []
        if not 1 <= self.shards <= 4096:
            problems.append(f"shards must be 1 .. 4096, got {self.shards}")
        if not 1 <= self.slices <= 4096:
            problems.append(f"slices must be 1 .. 4096, got {self.slices}")
        if self.key is not None and not re.fullmatch(r"(?:[0-9a-fA-F]{2}){16,64}", self.key):
            problems.append("key must be 16 to 64 bytes in hexadecimal (32 to 128 characters)")
        refuse_settings("partition", problems)


def check_schedule(training: TrainingSettings, partition: PartitionSettings, model: ModelSettings) -> None:
    """Raise ``Invalid`` when a slice would get no epoch (E5)."""
    if model.is_whole:
        return
    least = minimum_epochs(partition.slices)
    if training.epochs < least:
        raise Invalid(
            f"[training] epochs = {training.epochs} gives some of {partition.slices} slices no epoch",
            f"Set epochs to at least {least}, or [partition] slices to fewer.",
        )


def check_learner(model: ModelSettings, data: DataSettings) -> None:
    """Raise ``Invalid`` when the learner does not serve the target, or takes no sequences and images."""
    served = LEARNERS[model.learner].targets
    if data.target not in served:
        others = [name for name, kind in LEARNERS.items() if data.target in kind.targets]
        raise Invalid(
            f"[model] learner = {model.learner!r} does not serve the target {data.target}, only {', '.join(served)}",
            f"Take {' or '.join(others)}.",
        )
    if data.target == Recommend.kind:
        refuse_settings("data", _item_problems(data))
    if model.learner == TORCH:
        return
    shaped = [name for name, each in data.encoders.encoders.items() if isinstance(each, ImageEncoder | TokensEncoder)]
    if shaped:
        raise Invalid(
            f"[model] learner = {model.learner!r} takes a row of numbers, and {shaped[0]} is an image or a sequence",
            "Leave the column out, encode a text with words, or take the learner torch.",
        )


def _item_problems(data: DataSettings) -> list[str]:
    wide = [name for name in data.features if (each := data.encoders.of(name)) is not None and each.width > 1]
    if wide:
        return [f"encode {wide[0]}: it becomes several features, and each one of the target {data.target} is an item"]
    if any(set(name) & set("*?[") for name in data.features):
        return [f"features needs the name of each item for the target {data.target}, and no pattern: answers name them"]
    if len(set(data.features)) < max(2, len(data.features)):
        return [f"features needs two or more different items for the target {data.target}"]
    return []


def check_loss(training: TrainingSettings, data: DataSettings) -> None:
    """Raise ``Invalid`` when the target does not have the loss."""
    losses = data.predicted.losses
    if not losses:
        return  # ``check_learner`` refuses the learner torch
    loss = training.loss or losses[0]
    if ":" not in loss and loss not in losses:
        raise Invalid(
            f"[training] loss = {loss!r} is not one of the target {data.target}",
            f"Take {' or '.join(losses)}, or a callable of your own.",
        )
    if CROSS_ENTROPY not in losses and (training.label_smoothing or training.class_weights):
        raise Invalid(
            f"[training] label_smoothing and class_weights belong to the target class, [data] target is {data.target}",
            "Leave them out.",
        )


def check_class_weights(training: TrainingSettings, data: DataSettings) -> None:
    """Raise ``Invalid`` when there is not one weight for each class."""
    weights = training.class_weights if data.predicted.has_classes else None
    if weights is not None and len(weights) != len(data.classes):
        raise Invalid(
            f"[training] class_weights has {len(weights)} weights for {len(data.classes)} classes",
            "Give one weight for each of [data] classes, in their order.",
        )
