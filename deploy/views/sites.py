"""What commands do and print when the specification has several sites and ``--site`` names none of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coordinator.receipts.bundles import statement_of
from deploy.views.erasure import Given, erase_outcome, with_private_facts
from deploy.views.evaluation import evaluation_data, evaluation_text
from deploy.views.output import ExitCode, Outcome, Problem, json_value
from deploy.views.receipts import receipt_text
from deploy.views.tables import table
from deploy.views.text import requests_text, verification_text
from deploy.views.verifying import finding_json, proof_json
from storage.errors import Invalid

if TYPE_CHECKING:
    from cluster.results.sites import SitesMeasures, SitesStatus
    from cluster.sites.federation import SiteFederation
    from coordinator.sites import TookPart


def train_sites(federation: SiteFederation) -> Outcome:
    """Let every site join and train, and list those that cannot be reached. It fails if no site has joined."""
    status = federation.train()
    outcome = sites_status_outcome(status)
    if any(each.membership == "member" for each in status.sites):
        return outcome
    why = "; ".join(f"{each.site}: {each.reason or each.membership}" for each in status.sites)
    problem = Problem(
        kind="unavailable",
        message=f"no site has joined the federation: {why}",
        remedy="Train and serve at the sites, hand over their tokens, and run 'sisa train' again. See 'Several sites'"
        " in docs/operations.md.",
    )
    return replace(outcome, problem=problem, code=ExitCode.UNAVAILABLE)


def predict_at_sites(federation: SiteFederation, data: str, out: Path) -> Outcome:
    """Write the federation's answers for a data file."""
    from shards.data.prediction_files import check_ending

    check_ending(out)
    answers = federation.predict(data)
    points = answers.write(out)
    facts = {
        "out": str(out),
        "points": points,
        "constituents": answers.constituents,
        "shards": answers.shards,
        **who(answers.sites, answers.absent),
    }
    text = (
        f"wrote {points:,} predictions to {out} (constituents {answers.constituents} of {answers.shards})\n"
        + who_text(answers.sites, answers.absent)
    )
    return Outcome(data=facts, text=text)


def evaluate_at_sites(federation: SiteFederation, data: str | None) -> Outcome:
    """Measure how good the federation's answers to labelled data are, or each site's own to its hold-out points."""
    if data is None:
        return _measures_outcome(federation.measures())
    found = federation.evaluate(data)
    return Outcome(
        data={**json_value(evaluation_data(found.overall)), **who(found.sites, found.absent)},
        text=f"{evaluation_text(found.overall)}\n{who_text(found.sites, found.absent)}",
    )


def _measures_outcome(found: SitesMeasures) -> Outcome:
    if not found.sites:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.absent.items())
        raise Invalid(
            f"no site reports a measure on its hold-out points: {reasons}",
            "Name a labelled file, or run 'sisa --site NAME evaluate' at a site. Sites that hold out people are asked"
            " if their tables say measures = true.",
        )
    names = tuple(dict.fromkeys(name for each in found.sites.values() for name in each.metrics))
    lines = [
        (name, each.points, each.generation, *(_number(each.metrics, metric) for metric in names))
        for name, each in found.sites.items()
    ]
    together = ("together", found.points, "-", *(_number(found.together, metric) for metric in names))
    parts = [
        "each site's own constituents on its own hold-out points; 'sisa evaluate FILE' measures all sites together",
        table(("site", "points", "generation", *names), [*lines, together]),
        *(f"without {name}: {reason}" for name, reason in found.absent.items()),
    ]
    return Outcome(data=json_value(found) | {"points": found.points}, text="\n".join(parts))


def _number(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.4f}" if name in metrics else "-"


def sites_status_outcome(status: SitesStatus) -> Outcome:
    """Return a federation's status: ``constituents`` are those of all sites, each with its site."""
    data = json_value(status)
    data["waits_for"] = list(status.waits_for)
    data["constituents"] = [
        {"site": site["site"], **each}
        for site in data["sites"]
        if site["status"]
        for each in site["status"]["constituents"]
    ]
    lines = [
        (
            each.site,
            each.membership,
            each.leaves,
            each.status.points if each.status else "-",
            each.status.generation if each.status else "-",
            f"{each.status.serving} of {each.status.shards}" if each.status else "-",
            each.reason,
        )
        for each in status.sites
    ]
    header = ("site", "membership", "leaves it", "points", "generation", "answer", "note")
    parts = [f"federation {status.name} in {status.store}", table(header, lines)]
    parts += [
        f"erasure requests at {each.site}\n{requests_text(each.status.requests)}"
        for each in status.sites
        if each.status is not None and each.status.requests
    ]
    return Outcome(data=data, text="\n\n".join(parts))


def show_sites(federation: SiteFederation, request_id: str | None) -> Outcome:
    """Return the federation's status, or one request, from the site that has it."""
    if request_id is None:
        return sites_status_outcome(federation.status())
    site, found = federation.request(request_id)
    return _at(site, erase_outcome(found, None))


def erase_at_site(
    federation: SiteFederation,
    site: str,
    given: Given,
    *,
    request_id: str | None,
    hold: str | None,
    wait: bool,
    include_similar: bool = False,
) -> Outcome:
    """Erase people or data points at one site."""
    subjects, ids = given.names()
    with given.lines():
        answer = federation.erase(
            site,
            subjects=subjects,
            ids=ids,
            request_id=request_id,
            held=hold or "",
            wait=wait,
            include_similar=include_similar,
        )
    return _at(
        site, with_private_facts(erase_outcome(answer.request, None), given.private_facts(answer), given.in_file)
    )


def withdraw_site(federation: SiteFederation, site: str, reason: str) -> Outcome:
    """Take a site out of the federation for good."""
    found = federation.withdraw(site, reason)
    text = f"site {site} is {found.membership}: its constituents no longer take part in answers"
    if found.membership == "withdrawn":
        text += "\nits data are purged once it can be reached: then run 'sisa train', or repeat this command"
    else:
        text += f"\nall its data points are erased; 'sisa receipt withdrawal-of-{site}' proves it"
    return Outcome(data=json_value(found), text=text)


def receipt_at_sites(federation: SiteFederation, request_id: str | None, *, quiet: bool) -> Outcome:
    """Return the site's receipt for stdout, and in ``data`` also the federation's own."""
    assert request_id is not None
    found = federation.receipt(request_id)
    if not quiet:
        sys.stderr.write(f"at site {found.site}:\n{receipt_text(found.at_site, statement_of(found.at_site))}\n\n")
        sys.stderr.write(
            f"the federation has stated that the site gave this very receipt: entry {found.at_federation.index} of its"
            " own log\n"
        )
    data = {
        "request_id": request_id,
        "site": found.site,
        "bundle": json.loads(found.at_site.to_bytes()),
        "federation_bundle": json.loads(found.at_federation.to_bytes()),
    }
    return Outcome(data=data, text=found.at_site.to_bytes().decode("ascii"))


def verify_at_sites(federation: SiteFederation, *, everything: bool) -> Outcome:
    """Verify at every member; it fails if a site cannot be asked."""
    found = federation.verify(everything=everything)
    data = {
        "exact": all(each.exact for each in found.sites.values()) and not found.absent,
        "sites": {
            name: {
                "exact": each.exact,
                "guarantee": each.guarantee,
                "shards": [proof_json(proof, each.guarantee) for proof in each.shards],
                "residue": finding_json(json_value(each.residue)),
                "receipts": finding_json(json_value(each.receipts)),
            }
            for name, each in found.sites.items()
        },
        "absent": dict(found.absent),
    }
    text = "\n\n".join(
        [f"site {name}\n{verification_text(each)}" for name, each in found.sites.items()]
        + [f"site {name}: {reason}" for name, reason in found.absent.items()]
    )
    if found.holds:
        return Outcome(data=data, text=text)
    failed = [name for name, each in found.sites.items() if not each.holds]
    if failed:
        problem = Problem(
            kind="proof_failed",
            message=f"the proof does not hold at {', '.join(failed)}",
            remedy="Run 'sisa --site NAME train' there, which rebuilds what is damaged, then verify again.",
        )
        return Outcome(data=data, text=text, problem=problem, code=ExitCode.PROOF_FAILED)
    problem = Problem(
        kind="unavailable",
        message=f"not every site could be asked: {', '.join(found.absent)}",
        remedy="Run 'sisa --site NAME verify' at the site, or verify again when it is back.",
    )
    return Outcome(data=data, text=text, problem=problem, code=ExitCode.UNAVAILABLE)


def _at(site: str, outcome: Outcome) -> Outcome:
    return Outcome(
        data={"site": site, **(outcome.data or {})},
        text=f"site {site}: {outcome.text}",
        problem=outcome.problem,
        code=outcome.code,
    )


def who(sites: Sequence[TookPart], absent: Mapping[str, str]) -> dict[str, Any]:
    """Return which sites took part in an answer, and which did not and why, as JSON."""
    return {"sites": [json_value(each) for each in sites], "absent": dict(absent)}


def who_text(sites: Sequence[TookPart], absent: Mapping[str, str]) -> str:
    """Return which sites took part in an answer, and which did not and why, as text."""
    lines = [(each.site, each.generation, f"{each.constituents} of {each.shards}") for each in sites]
    missing = [f"without {name}: {reason}" for name, reason in absent.items()]
    return "\n".join([table(("site", "generation", "constituents"), lines), *missing])
