"""Federation: what the constituents have learned and serve, what erasures did to them and cost, and what is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from threading import Lock
from typing import Any, Final

from fastapi import Request
from starlette.responses import Response

from cluster.coordinator_actor.metrics import tainted
from cluster.coordinator_actor.store_size import StoreCount, StoreSize
from cluster.serving.console.grid import WORDS, Progress, ShardCells, progress_of, shard_cells
from cluster.serving.console.pages import HEADERS, Page, Pages
from cluster.serving.console.sign_in import SignedIn
from cluster.serving.console.streams import LiveView, Streams
from cluster.serving.service import Service
from cluster.tokens import Role
from coordinator.requests import Cost, ErasureRequest, RequestState
from coordinator.state import FederationState
from coordinator.status import FederationStatus
from storage.errors import ObjectMissing

_READERS: Final[tuple[Role, ...]] = ("officer", "audit")
_MOST_ROWS: Final = 50
_ERASURES: Final = 20
_GENERATIONS: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The part of a state that the page shows; see the fields of ``FederationStatus`` for the rest."""

    status: FederationStatus
    """Without requests and the store's place."""
    cells: tuple[ShardCells, ...]
    partial: tuple[ShardCells, ...]
    """The first shards that do not serve all of their slices."""
    partial_count: int
    shapes: dict[tuple[tuple[str, int], ...], int]
    """The numbers under which the grid draws equal shards once."""
    portions: int
    tainted: int
    open: tuple[tuple[str, int], ...]
    """Open requests, by the state that people see."""
    progress: Progress | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The expected and the actual cost of the retrains of all complete requests."""

    complete: int
    expected: Cost
    spent: Cost


class Storage:
    """Counts what the store holds, a piece at a time, while somebody looks at the page."""

    def __init__(self, count: StoreCount) -> None:
        self._count = count
        self._lock = Lock()
        self._found: StoreSize | None = None

    def step(self) -> StoreSize | None:
        """Return the last complete count, and continue the next one if it is due; None: the first is not complete."""
        if self._lock.acquire(blocking=False):
            try:
                self._found = self._count.step()
            finally:
                self._lock.release()
        return self._found


class FederationPage:
    """The page of the engineer, live."""

    def __init__(self, pages: Pages, service: Service) -> None:
        self._pages = pages
        self._service = service
        self._storage = Storage(StoreCount(service.store, service.clock))
        self.streams = Streams(service.serve, self._look)

    @property
    def routes(self) -> tuple[Page, ...]:
        """Its routes."""
        return (
            Page(path="/federation", act=self.shown, roles=_READERS),
            Page(path="/federation/live", act=self.live, roles=_READERS, lane=self.streams.lane),
            Page(path="/federation/shards/{shard}", act=self.constituent, roles=_READERS),
        )

    async def shown(self, request: Request, signed_in: SignedIn) -> Response:
        """Show the federation as it is now."""
        state = await self._pages.call(self._service.standing.current)
        if state is None:
            return self._pages.rendered(request, signed_in, "untrained.html.jinja")
        facts = await self._pages.call(lambda: self._facts(state, sees_effects=signed_in.token.role == "officer"))
        return self._pages.rendered(request, signed_in, "federation.html.jinja", **facts)

    async def live(self, request: Request, signed_in: SignedIn) -> Response:
        """Stream the part of the page that changes."""
        del request
        return self.streams.answer(signed_in.token.token_id, lambda: self._pages.check_still(signed_in), HEADERS)

    async def constituent(self, request: Request, signed_in: SignedIn) -> Response:
        """Show one shard's constituent."""
        given = request.path_params["shard"]
        found = await self._pages.call(lambda: self._constituent(given))
        return self._pages.rendered(request, signed_in, "shard.html.jinja", **found)

    def _facts(self, state: FederationState, *, sees_effects: bool) -> dict[str, Any]:
        erasures = tuple(islice(_ended(state), _ERASURES))
        return {
            "overview": self._overview(state),
            "words": WORDS,
            "costs": _costs(state),
            "erasures": erasures,
            "sees_effects": sees_effects,
            "measured": _measured(state, erasures) if sees_effects else (),
            "measure": state.measure,
            "is_measured": state.has_current_measure,
            "history": tuple(reversed(state.history))[:_GENERATIONS],
            "size": self._storage.step(),
        }

    def _overview(self, state: FederationState) -> Overview:
        # Without requests: there may be ten thousand, of which this page only shows counts.
        status = replace(self._service.standing.reading.describe(replace(state, requests=())), store="")
        cells = shard_cells(state)
        partial = [each for each in cells if not each.is_whole]
        counts = Counter(request.shown.value for request in state.requests if request.state.is_open)
        return Overview(
            status=status,
            cells=cells,
            partial=tuple(partial[:_MOST_ROWS]),
            partial_count=len(partial),
            shapes={runs: number for number, runs in enumerate(dict.fromkeys(each.runs for each in cells))},
            portions=cells[0].portions,
            tainted=len(tainted(state)),
            open=tuple(sorted(counts.items())),
            progress=progress_of(state, self._service.specification.erasure, self._service.clock.now()),
        )

    async def _look(self, position: object) -> LiveView | None:
        """Return the live part of the page, None if nothing was committed since ``position``."""
        return await self._pages.call(lambda: self._looked(position))

    def _looked(self, position: object) -> LiveView | None:
        standing = self._service.standing
        standing.current()
        state, now = standing.seen()
        if state is None or now == position:
            return None
        text = self._pages.part("federation_live.html.jinja", overview=self._overview(state), words=WORDS)
        return LiveView(position=now, text=text)

    def _constituent(self, given: str) -> dict[str, Any]:
        state = self._service.standing.trained()
        if not (given.isdecimal() and len(given) < 10 and int(given) < len(state.shards)):
            raise ObjectMissing("there is no such shard", f"The shards are 0 to {len(state.shards) - 1}.")
        number = int(given)
        described = self._service.standing.reading.describe(replace(state, requests=()))
        constituent = described.constituents[number]
        return {
            "cells": shard_cells(state)[number],
            "shard": state.shards[number],
            "constituent": constituent,
            "words": WORDS,
        }


def _ended(state: FederationState) -> Iterator[ErasureRequest]:
    """Yield the requests that were carried out and are still in the state, the last one first."""
    complete = (request for request in state.requests if request.state is RequestState.COMPLETE)
    return iter(sorted(complete, key=lambda request: request.times.get(RequestState.COMPLETE.value, ""), reverse=True))


def _costs(state: FederationState) -> Costs:
    complete = [request for request in state.requests if request.state is RequestState.COMPLETE]
    return Costs(
        complete=len(complete) + state.ended.complete,
        expected=sum((request.found.expected or Cost() for request in complete), start=state.ended.expected),
        spent=sum((request.spent for request in complete), start=state.ended.spent),
    )


def _measured(state: FederationState, erasures: tuple[ErasureRequest, ...]) -> tuple[dict[str, Any], ...]:
    """Return the measures of generations, in their order, for a chart: each once."""
    effects = [request.effect for request in erasures if request.effect is not None]
    found = [measure for effect in effects for measure in (effect.before, effect.after) if measure is not None]
    if state.measure is not None:
        found.append(state.measure)
    by_generation = {each.generation: each for each in found}
    return tuple(
        {"generation": number, "at": each.at, "points": each.points, "metrics": dict(each.metrics)}
        for number, each in sorted(by_generation.items())
    )
