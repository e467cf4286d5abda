"""What ``sisa doctor`` says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster.doctor import Finding, examine
from cluster.federation import Federation
from deploy.views.output import ExitCode, Outcome, Problem, json_value
from deploy.views.tables import table
from shards.slices.survey import DataFault, remedy_of
from storage.errors import Invalid, Unavailable


def diagnose(federation: Federation, *, rows_in: Path | None = None, copies_in: Path | None = None) -> Outcome:
    """Return the findings; exit code 1 when a check failed. For the two places see ``examine``."""
    findings = list(examine(federation, rows_in=rows_in, copies_in=copies_in))
    failed = [finding for finding in findings if not finding.ok]
    problem = None
    if failed:
        problem = Problem(
            kind="unhealthy",
            message=f"{len(failed)} of {len(findings)} checks failed: {', '.join(each.check for each in failed)}",
            remedy="See each check's own remedy.",
        )
    return Outcome(
        data={"healthy": not failed, "checks": json_value(findings)},
        text=_text(findings),
        problem=problem,
        code=ExitCode.FAILED if failed else ExitCode.DONE,
    )


def refused_data(federation: Federation) -> Outcome | None:
    """Return everything in the source that training would refuse; None if there is nothing, or the source is gone."""
    try:
        faults = federation.faults()
    except (Invalid, Unavailable):
        if federation.status().generation:
            return None  # training would continue with the data already ingested
        raise
    if not faults:
        return None
    return Outcome(
        data={"faults": json_value(faults)},
        text="\n".join(map(str, faults)),
        problem=Problem(kind="invalid", message=faults_text(faults), remedy=remedy_of(faults)),
        code=ExitCode.INVALID,
    )


def _text(findings: list[Finding]) -> str:
    lines = [("ok" if each.ok else "FAILED", each.check, _message(each)) for each in findings]
    faults = [f"  {each.check}: {fault}" for each in findings for fault in each.faults]
    remedies = [f"  {each.check}: {each.remedy}" for each in findings if not each.ok and each.remedy]
    return "\n".join([table(("", "check", "found"), lines), *faults, *remedies])


def _message(finding: Finding) -> str:
    return faults_text(finding.faults) if finding.faults else finding.message


def faults_text(faults: Sequence[DataFault]) -> str:
    """Return how much of the data training would refuse."""
    return f"training would refuse the data for {len(faults)} reason{'s' * (len(faults) > 1)}"
