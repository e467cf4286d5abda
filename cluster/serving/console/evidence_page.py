"""Evidence: the receipts' log, the keys that sign, what this server checks by itself, and the last verification."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from starlette.responses import Response

from cluster.coordinator_actor.metrics import tainted
from cluster.coordinator_actor.record import noted_releases
from cluster.release import own_release
from cluster.serving.console.pages import Page, Pages
from cluster.serving.console.sign_in import SignedIn
from cluster.serving.endpoints import Behind
from cluster.serving.service import Service
from cluster.writer.last_verification import LastVerification, last_verification
from coordinator.decisions.times import MOST_SECONDS_BEHIND
from coordinator.receipts.bundles import CHECKPOINTS
from storage.errors import ObjectMissing, SisaError
from storage.transparency.checkpoint import open_checkpoint
from storage.transparency.keys import published_keys

KEY_STATES: Final = {
    "signs": "signs now",
    "retired": "only verifies: its private half is destroyed",
    "replaced": "another key signs, but its private half still exists: a rotation was interrupted",
    "away": "its private half is not in this store, and may still sign elsewhere",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Noticed:
    """What one check of this server found."""

    check: str
    ok: bool
    text: str
    remedy: str = ""


class EvidencePage:
    """The evidence for the federation's claims, as far as a server has it without taking the writer's place."""

    def __init__(
        self, pages: Pages, behind: Behind, checks: Callable[[], Iterator[Noticed]], *, has_sites: bool = False
    ) -> None:
        """``checks`` are this server's own; with ``has_sites``, verifications are recorded at each site."""
        self._has_sites = has_sites
        self._pages = pages
        self._behind = behind
        self._checks = checks

    @property
    def routes(self) -> tuple[Page, ...]:
        """Its route."""
        return (Page(path="/evidence", act=self.shown, roles=("officer", "audit")),)

    async def shown(self, request: Request, signed_in: SignedIn) -> Response:
        """Show the evidence."""
        facts = await self._pages.call(self._facts)
        return self._pages.rendered(request, signed_in, "evidence.html.jinja", key_states=KEY_STATES, **facts)

    def _facts(self) -> dict[str, Any]:
        registrar, store = self._behind.registrar, self._behind.store
        log: dict[str, Any] | None = None
        try:
            growth = registrar.growth()
        except ObjectMissing:
            pass
        else:
            opened = open_checkpoint(growth.checkpoint, published_keys(store, CHECKPOINTS))
            log = {"note": growth.checkpoint, "checkpoint": opened.checkpoint}
        verified: LastVerification | None = last_verification(store)
        return {
            "log": log,
            "keys": registrar.key_statements(),
            "checks": tuple(self._checks()),
            "verified": verified,
            "has_sites": self._has_sites,
        }


def own_checks(service: Service) -> Iterator[Noticed]:
    """Yield what a federation's server finds out by itself."""
    yield _noticed("answers", service.check, "this server can answer, and has confirmed that with the store")
    state = service.standing.current()
    if state is None:
        yield Noticed(check="federation", ok=False, text="nothing is trained yet", remedy="Run 'sisa train'.")
        return
    status = service.standing.reading.status()
    yield Noticed(
        check="log and state",
        ok=not status.forgotten,
        text=f"the log states {len(status.forgotten)} requests that the state does not know"
        if status.forgotten
        else "the state knows every request that the log states as carried out",
        remedy="Stop serving: the state was set back to an earlier moment. See 'sisa doctor'."
        if status.forgotten
        else "",
    )
    wrong = tainted(state)
    yield Noticed(
        check="lineages",
        ok=not wrong,
        text=f"{len(wrong)} served constituents have seen other data points than their slices hold"
        if wrong
        else f"every one of the {status.serving} constituents that answer has seen exactly what its slices hold",
        remedy="Stop serving, and run 'sisa verify'." if wrong else "",
    )
    yield Noticed(
        check="verifications",
        ok=not state.refuted or all(state.is_trained(each.shard) for each in state.refuted),
        text=f"{len(state.refuted)} constituents were found wrong by verifications, and withdrawn"
        if state.refuted
        else "no verification has found a constituent wrong",
        remedy="Their statements are in the log." if state.refuted else "",
    )
    behind = status.clock_behind_seconds
    yield Noticed(
        check="clock",
        ok=behind <= MOST_SECONDS_BEHIND,
        text=f"this machine's clock is {behind:g} s behind the newest time on record"
        if behind
        else "this machine's clock is not behind any time on record",
        remedy="Set it (NTP)." if behind > MOST_SECONDS_BEHIND else "",
    )
    changed = status.differences
    yield Noticed(
        check="settings",
        ok=not changed,
        text=f"settings differ from those of the last training: {', '.join(changed)}"
        if changed
        else "the settings are those of the last training",
        remedy="Run 'sisa train' to apply them, or change them back." if changed else "",
    )
    yield from _releases(service)


def _releases(service: Service) -> Iterator[Noticed]:
    coordinator = noted_releases(service.store).get("coordinator")
    if coordinator is not None:
        same = coordinator == own_release()
        yield Noticed(
            check="release",
            ok=same,
            text="the coordinator and this server run the same release"
            if same
            else "the coordinator runs another release than this server",
            remedy="" if same else "Upgrade both: see docs/upgrades.md.",
        )


def _noticed(check: str, act: Callable[[], None], fine: str) -> Noticed:
    try:
        act()
    except SisaError as error:
        return Noticed(check=check, ok=False, text=error.fact, remedy=error.remedy)
    return Noticed(check=check, ok=True, text=fine)
