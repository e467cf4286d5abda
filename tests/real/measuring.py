"""One real data set: through all the commands, and as a plain loop."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from tests.doubles.user_folder import run
from tests.real.cases import RealCase
from tests.real.plain import PlainRecipe, plain_answers, prepared


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was found on one data set."""

    points: int
    people: int
    ours: float
    plain: float
    trivial: float
    """Measure of a model that always predicts the most frequent class, or always the mean."""
    erased: int
    """Data points of the person who was erased."""
    share: float
    """The erasure's cost as a share of the full training's, in data points times epochs."""
    exact: bool
    found: int
    """Pieces of residue."""


def compare(case: RealCase, *, every: int) -> Comparison:
    """Play a user's part in the current folder, from the draft to a checked receipt; hold a part of the people out."""
    _write_raw(case, every)
    options = ["--header", case.header] if case.header else []
    _run("init", "raw.csv", "--add-ids", "people.csv", "--label", case.label, *options)
    header, *rows = csv.reader(io.StringIO(Path("people.csv").read_text(encoding="utf-8"), newline=""))
    who = header.index(case.person)
    parts: dict[str, list[list[str]]] = {"train.csv": [], "holdout.csv": []}
    for row in rows:
        parts["holdout.csv" if _number(f"kept {row[who]}") % case.parts == 0 else "train.csv"].append(row)
    for name, chosen in parts.items():
        with Path(name).open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([header, *chosen])
    _edit(case)
    _run("train")
    evaluated = _run("evaluate", "holdout.csv")
    _run("predict", "holdout.csv", "--out", "answers.csv")
    assert len(pd.read_csv("answers.csv")) == len(parts["holdout.csv"])
    count = Counter(row[who] for row in parts["train.csv"])
    person = max(count, key=lambda each: (count[each], each))
    erased = _run(
        "erase", "--subject" if case.person != "point_id" else "--id", person, "--request-id", "one", "--wait"
    )
    assert erased["state"] == "complete"
    verified = _run("verify")
    _check_receipt()
    plain, trivial, epochs = _plain(case, parts)
    return Comparison(
        points=len(parts["train.csv"]),
        people=len(count),
        ours=float(evaluated["metrics"][case.metric]),
        plain=plain,
        trivial=trivial,
        erased=int(erased["points"]),
        share=erased["spent"]["point_epochs"] / (epochs * len(parts["train.csv"])),
        exact=bool(verified["exact"]),
        found=len(verified["residue"]["found"]),
    )


def _check_receipt() -> None:
    """Check the receipt as an auditor does, with the operator's public keys alone."""
    said = run("receipt", "one")
    assert said.code == 0, said.err
    Path("receipt.json").write_text(said.out, encoding="utf-8")
    _run("keys", "--export", "operator.keys")
    _run("receipt", "--check", "receipt.json", "--key", "operator.keys")


def _run(*words: str) -> dict[str, Any]:
    said = run(*words, "--json")
    assert said.code == 0, said.out + said.err
    data: dict[str, Any] = json.loads(said.out)["data"]
    return data


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])


def _write_raw(case: RealCase, every: int) -> None:
    """Write the file as it is, or each ``every``-th person of it."""
    text = case.archive.member(*case.path).decode("utf-8")
    if every > 1:
        lines = text.splitlines(keepends=True)
        head = [] if case.header else lines[:1]
        place = next(csv.reader(head)).index(case.person) if case.person != "point_id" else None
        rows = lines[len(head) :]
        whose = rows if place is None else [next(csv.reader([row]))[place] for row in rows]
        text = "".join(head + [row for row, name in zip(rows, whose, strict=True) if _number(name) % every == 1])
    Path("raw.csv").write_text(text, encoding="utf-8")


def _edit(case: RealCase) -> None:
    text = Path("sisa.toml").read_text(encoding="utf-8")
    changes = {'"people.csv"': '"train.csv"', '# key  = "…"': f'key = "{"5e" * 16}"', **case.edits}
    for old, new in changes.items():
        text = text.replace(old, new)
    Path("sisa.toml").write_text(text, encoding="utf-8")


def _plain(case: RealCase, parts: dict[str, list[list[str]]]) -> tuple[float, float, int]:
    """Return the plain loop's figure, that of a constant answer, and the epochs."""
    document = tomllib.loads(Path("sisa.toml").read_text(encoding="utf-8"))
    data, training = document["data"], document["training"]
    header = next(csv.reader(io.StringIO(Path("train.csv").read_text(encoding="utf-8"))))
    frame = pd.DataFrame(parts["train.csv"] + parts["holdout.csv"], columns=header, dtype=str)
    trained = np.arange(len(frame)) < len(parts["train.csv"])
    features_NF = prepared(frame, data["features"], data.get("encode", {}))
    if "encode" not in data:
        features_NF /= np.asarray(data.get("scale", 1.0), dtype=np.float32)
    kind = data.get("target", "class")
    names = [data["label"]] if isinstance(data["label"], str) else data["label"]
    shift, scale = data.get("label_shift", 0.0), data.get("label_scale", 1.0)
    if kind == "class":
        labels_N: Any = frame[names[0]].map({name: place for place, name in enumerate(data["classes"])}).to_numpy()
    else:
        labels_N = ((frame[names].astype(float) - shift) / scale).to_numpy(dtype=np.float32)
    recipe = PlainRecipe(
        target=kind,
        outputs=len(data["classes"]) if kind == "class" else len(names),
        shards=document["partition"]["shards"],
        epochs=training["epochs"],
        batch_size=training["batch_size"],
        optimizer=training["optimizer"],
        learning_rate=training["learning_rate"],
        arguments=document["model"]["arguments"],
    )
    people = frame.loc[trained, case.person].tolist()
    answers = plain_answers(recipe, features_NF[trained], labels_N[trained], people, features_NF[~trained])
    truth, seen = labels_N[~trained], labels_N[trained]
    if kind == "class":
        plain, trivial = (
            (answers.argmax(axis=1) == truth).mean(),
            (np.bincount(seen).argmax() == truth).mean(),
        )
    elif kind == "number":
        plain, trivial = (scale * np.sqrt(np.square(each - truth).mean()) for each in (answers, seen.mean(axis=0)))
    else:
        usual = np.broadcast_to(seen.mean(axis=0) >= 0.5, truth.shape)
        plain, trivial = (f1_score(truth, each, average="micro") for each in (answers >= 0.5, usual))
    return float(plain), float(trivial), recipe.epochs
