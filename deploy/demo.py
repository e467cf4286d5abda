"""``sisa demo``: trains, predicts, erases and verifies on real data, and checks each step."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import which
from typing import Any, Final

import cluster
from cluster.config.serve import ServeSettings
from cluster.config.specification import FederationSpecification, read_specification
from cluster.federation import Federation
from cluster.results.federation import Verification
from cluster.runtime.system import SystemClock
from cluster.tokens import TokenRegister
from cluster.writer.identity import partition_key
from cluster.writer.stores import open_objects
from coordinator.status import FederationStatus
from deploy.demo_data import DemoData, write_digits, write_fashion_mnist, write_without
from deploy.views.evaluation import evaluation_text
from deploy.views.output import ExitCode, Outcome, Problem
from deploy.views.progress import listening
from deploy.views.receipts import check_receipt
from deploy.views.text import erasure_text, plan_text, status_text, verification_text
from storage.errors import Invalid, Unavailable

_SPECIFICATION: Final = """\
# Written by 'sisa demo'. One federation: its data, its model, and how both are split.
name  = "demo-{name}"
store = "./federation"

[data]
train    = "data/train.parquet"
id       = "id"                  # names each data point
subject  = "user_id"             # whose it is: erasing a person erases all of theirs
label    = "label"
features = ["x*"]
classes  = [{classes}]
scale    = {scale}

[model]
factory   = "shards.models:mlp"
arguments = {{ hidden = [{hidden}] }}

[training]
epochs        = {epochs}
batch_size    = 16
optimizer     = "sgd"
learning_rate = {learning_rate}
seed          = 7

[partition]
shards = 5
slices = 5
"""

_MODELS: Final[Mapping[str, Mapping[str, object]]] = {
    "digits": {"hidden": 64, "epochs": 40, "learning_rate": 0.1},
    "fashion-mnist": {"hidden": 128, "epochs": 20, "learning_rate": 0.05},
}
_ERASED_PERSON: Final = "person-0017"
_KEYS: Final = "operator.keys"
_CONSOLE_ROLES: Final[Mapping[str, str]] = {
    "officer": "everything",
    "audit": "looks at requests, receipts and the federation",
    "predict": "tries predictions",
}
_SOUND: Final = "unaltered, signed, and in the log"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Story:
    """What the demo found, step by step."""

    before: FederationStatus
    after: FederationStatus
    fresh: FederationStatus
    accuracy_before: float
    accuracy_after: float
    erased_points: int
    affected: tuple[int, ...]
    verification: Verification
    mentions: int
    """Files of the store that still name the person."""
    receipt: Path
    """The signed receipt, as saved."""

    @property
    def holds(self) -> bool:
        """Whether everything that the demo claims is true."""
        digests = [each.digest for each in self.after.constituents]
        untouched = all(
            a.digest == b.digest
            for a, b in zip(self.before.constituents, self.after.constituents, strict=True)
            if a.shard not in self.affected
        )
        equal = digests == [each.digest for each in self.fresh.constituents]
        return (
            untouched and equal and self.verification.holds and not self.mentions and _checked(self.receipt) == _SOUND
        )


def run_demo(dataset: str, folder: Path, data_folder: Path | None, *, quiet: bool, serve: bool = False) -> Outcome:
    """Run the demo in ``folder``, or in the first free folder next to it, print each step, and return the results.

    With ``serve`` the federation is served in the end, and the results hold a token for each role of the console.
    """
    home = _free_folder(folder)
    tell = _teller(quiet=quiet)
    data = _write_data(dataset, home / "data", data_folder)
    tell(
        f"1. Data: {data.train_points:,} pictures of {data.people} people to learn from,"
        f" {data.test_points:,} of other people to test on"
    )
    specification = home / "sisa.toml"
    text = _specification(data) + (f"\n[serve]\nport = {_free_port()}\n" if serve else "")
    specification.write_text(text, encoding="utf-8")
    with listening(quiet=quiet) as listener, cluster.launch(specification, listener=listener) as federation:
        story = _tell(federation, data, home, tell)
        federation.release()
        fresh = _train_without(federation.specification, data, home, tell, listener)
    story = replace(story, fresh=fresh)
    tell(_comparison(story))
    outcome = _outcome(story, home)
    return _serve(specification, home, outcome, tell) if serve and story.holds else outcome


def _tell(federation: Federation, data: DemoData, home: Path, tell: Callable[[str], None]) -> _Story:
    tell("\n2. Train: 5 shards, 5 slices each, a checkpoint after every slice")
    before = federation.train()
    tell(status_text(before))
    tell("\n3. Predict: the constituents' probabilities, averaged, on the people kept for testing")
    accuracy_before = federation.evaluate(data.test)
    tell(evaluation_text(accuracy_before))
    tell(f"\n4. {_ERASED_PERSON} asks to be erased. What would it cost?")
    tell(plan_text(federation.price(subjects=[_ERASED_PERSON])))
    request = federation.erase(subjects=[_ERASED_PERSON])
    after = federation.status()
    tell(erasure_text(request, after))
    accuracy_after = federation.evaluate(data.test)
    tell(f"accuracy after: {accuracy_after.accuracy:.4f} (before: {accuracy_before.accuracy:.4f})")
    tell("\n5. Prove it: retrain every shard from nothing on what is left, and look at every object of the store")
    verification = federation.verify()
    tell(verification_text(verification))
    mentions = _mentions(home / "federation", _ERASED_PERSON)
    tell(f"files of the store that name {_ERASED_PERSON}: {mentions}")
    receipt = home / "receipt.json"
    receipt.write_bytes(federation.registrar.find(request.request_id).to_bytes())
    keys = "".join(each.key.to_text() for each in federation.registrar.key_statements())
    (home / _KEYS).write_text(keys, encoding="utf-8")
    tell(f"the signed receipt, checked offline: {_checked(receipt)}")
    return _Story(
        before=before,
        after=after,
        fresh=after,
        accuracy_before=accuracy_before.accuracy,
        accuracy_after=accuracy_after.accuracy,
        erased_points=request.points,
        affected=tuple(request.shards),
        verification=verification,
        mentions=mentions,
        receipt=receipt,
    )


def _train_without(
    specification: FederationSpecification, data: DemoData, home: Path, tell: Callable[[str], None], listener: Any
) -> FederationStatus:
    """Train a second federation that never saw the person, under the same partition key."""
    tell(f"\n6. Compare: another federation, trained on a file that never held {_ERASED_PERSON}")
    file = write_without(data.train, home / "data" / "train-without.parquet", _ERASED_PERSON)
    store = open_objects(specification)
    key = partition_key(store, specification, draw=False)
    other = replace(
        specification,
        store="./federation-without",
        data=replace(specification.data, train=str(file.relative_to(home))),
        partition=replace(specification.partition, key=key.hex()),
    )
    with cluster.connect(other, listener=listener) as fresh:
        return fresh.train()


def _comparison(story: _Story) -> str:
    lines = ["shard  before            after erasing     never saw them"]
    for before, after, fresh in zip(
        story.before.constituents, story.after.constituents, story.fresh.constituents, strict=True
    ):
        digests = (str(each.digest)[:16] for each in (before, after, fresh))
        mark = "  <- retrained" if before.shard in story.affected else ""
        lines.append(f"{before.shard:5}  " + "  ".join(digests) + mark)
    return "\n".join(lines)


def command_from(folder: Path) -> str:
    """Return how a shell in ``folder`` calls ``sisa``: by its path where no environment is activated, as after make."""
    return "sisa" if which("sisa") else os.path.relpath(Path(sys.executable).with_name("sisa"), folder)


def _outcome(story: _Story, home: Path) -> Outcome:
    data = {
        "folder": str(home),
        "holds": story.holds,
        "accuracy_before": story.accuracy_before,
        "accuracy_after": story.accuracy_after,
        "erased_points": story.erased_points,
        "affected_shards": story.affected,
        "digests_before": [each.digest for each in story.before.constituents],
        "digests_after": [each.digest for each in story.after.constituents],
        "digests_without": [each.digest for each in story.fresh.constituents],
    }
    sisa = command_from(home)
    where = (
        f"\nEverything is in {home}:\n"
        f"  sisa.toml              the specification\n"
        f"  data/                  the data sets, where a user's own would be; they still hold {_ERASED_PERSON}:\n"
        f"                         files outside the store are yours to erase\n"
        f"  federation/            the store: slices, checkpoints, manifest, tombstones, receipts\n"
        f"  receipt.json           the signed receipt, and operator.keys, as 'sisa keys --export' writes them:\n"
        f"                         'sisa receipt --check receipt.json --key operator.keys' verifies it anywhere\n"
        f"  federation-without/    the store of the federation that never saw them\n"
        f"Continue with: cd {home} && {sisa} status; {sisa} erase --subject person-0042; {sisa} verify"
    )
    if story.holds:
        text = f"\nThe constituents are byte for byte those of a run that never saw {_ERASED_PERSON}.\n{where}"
        return Outcome(data=data, text=text)
    problem = Problem(
        kind="proof_failed",
        message="what the demo claims does not hold on this machine",
        remedy="This is a bug: please report it with the output of 'sisa verify --json'.",
    )
    return Outcome(data=data, text=where, problem=problem, code=ExitCode.PROOF_FAILED)


def _serve(specification: Path, home: Path, outcome: Outcome, tell: Callable[[str], None]) -> Outcome:
    """Serve the demo's federation, and return the outcome with the address of its console and its tokens."""
    from cluster.serving.deployment import serve_federation

    tell("\n7. Serve: a coordinator and a replica on this machine")
    served = read_specification(specification)
    serving = serve_federation(served)
    register = TokenRegister(open_objects(served), SystemClock())
    tokens = {role: register.create(role, days=1, note="demo").text for role in _CONSOLE_ROLES}
    sisa = command_from(home)
    text = "\n".join(
        [
            f"\nOpen {serving.url}/console and sign in with a token, which is good for a day and shown this once:",
            *(f"  {role}: {does}\n    {tokens[role]}" for role, does in _CONSOLE_ROLES.items()),
            "Ask there what is held of person-0042 and erase them, or look at the request of person-0017.",
            f"End it with: cd {home} && {sisa} serve --stop && {sisa} stop",
        ]
    )
    data = {**(outcome.data or {}), "url": serving.url, "console": f"{serving.url}/console", "tokens": tokens}
    return replace(outcome, data=data, text=f"{outcome.text}\n{text}")


def _free_port() -> int:
    """Return a port on which nothing listens: the usual one if it is free."""
    usual = ServeSettings()
    for port in (usual.port, 0):
        with suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((usual.host, port))
            found: int = probe.getsockname()[1]
            return found
    raise Unavailable("no port is free", "End a server on this machine, and try again.")


def _write_data(dataset: str, folder: Path, data_folder: Path | None) -> DemoData:
    if dataset == "digits":
        return write_digits(folder)
    if dataset == "fashion-mnist":
        return write_fashion_mnist(folder, data_folder)
    raise Invalid(f"there is no demo data set {dataset!r}", "Choose digits or fashion-mnist.")


def _specification(data: DemoData) -> str:
    classes = ", ".join(f'"{name}"' for name in data.classes)
    return _SPECIFICATION.format(name=data.name, classes=classes, scale=data.scale, **_MODELS[data.name])


def _free_folder(folder: Path) -> Path:
    """Return ``folder``, or the first free name next to it: an earlier demo is left as it is."""
    number, free = 2, folder
    while free.exists():
        free = folder.with_name(f"{folder.name}-{number}")
        number += 1
    free.mkdir(parents=True)
    return free


def _checked(receipt: Path) -> str:
    code = check_receipt(receipt, [receipt.with_name(_KEYS)]).code
    return _SOUND if code is ExitCode.DONE else "NOT genuine"


def _mentions(store: Path, name: str) -> int:
    return sum(name.encode() in path.read_bytes() for path in store.rglob("*") if path.is_file())


def _teller(*, quiet: bool) -> Callable[[str], None]:
    def tell(text: str) -> None:
        if not quiet:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    return tell
