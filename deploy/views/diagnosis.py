"""What ``sisa doctor`` says."""

from __future__ import annotations

from cluster.doctor import Finding, examine
from cluster.federation import Federation
from deploy.views.output import ExitCode, Outcome, Problem, plain
from deploy.views.text import table


def diagnose(federation: Federation) -> Outcome:
    """Return the findings; exit code 1 when a check failed."""
    findings = list(examine(federation))
    failed = [finding for finding in findings if not finding.ok]
    problem = None
    if failed:
        problem = Problem(
            kind="unhealthy",
            message=f"{len(failed)} of {len(findings)} checks failed: {', '.join(each.check for each in failed)}",
            remedy="see each check's own remedy",
        )
    return Outcome(
        data={"healthy": not failed, "checks": plain(findings)},
        text=_text(findings),
        problem=problem,
        code=ExitCode.FAILED if failed else ExitCode.DONE,
    )


def _text(findings: list[Finding]) -> str:
    lines = [("ok" if each.ok else "FAILED", each.check, each.message) for each in findings]
    remedies = [f"  {each.check}: {each.remedy}" for each in findings if not each.ok and each.remedy]
    return "\n".join([table(("", "check", "found"), lines), *remedies])
