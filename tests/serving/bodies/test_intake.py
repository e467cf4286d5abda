"""What comes in: slow bodies are given up, and one class of requests keeps no other waiting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from starlette.requests import Request

from cluster.config.serve import ServeSettings
from cluster.serving.bodies import JSON
from cluster.serving.console.pages import SIGN_INS
from cluster.serving.console.streams import STREAMS
from cluster.serving.http_errors import Refused
from cluster.serving.intake import CHANGES, LEAST_BYTES_PER_SECOND, ONGOING, PREDICTIONS, READS, Lane
from cluster.tokens import Role
from tests.serving.world import PATIENCE_SECONDS, World, points

SLOW = PREDICTIONS.token_bodies + PREDICTIONS.token_waiting + 20


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time advances when a test says so."""

    skipped = 0.0

    def time(self) -> float:
        """Return the time."""
        return super().time() + self.skipped


@dataclass(slots=True)
class Sender:
    """Requests as a server passes them on, their bodies part by part."""

    world: World
    stalled: int = 0
    """Bodies that have been begun and do not go on."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(
        self, method: str, path: str, role: Role | None, receive: Callable[[], Coroutine[Any, Any, Any]]
    ) -> Any:
        """Return the answer's status and body."""
        headers = {} if role is None else self.world.headers(role, Content_Type=JSON)
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }
        reported: list[Any] = [0, b""]

        async def send(message: dict[str, Any]) -> None:
            reported[0] = message.get("status", reported[0])
            reported[1] += message.get("body", b"")

        await self.world.client.app(scope, receive, send)  # type: ignore[arg-type]
        return reported[0], json.loads(reported[1])

    async def whole(self, method: str, path: str, role: Role | None, body: object = None) -> Any:
        """Ask with a body that comes at once."""

        async def receive() -> Any:
            return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

        return await asyncio.wait_for(self.ask(method, path, role, receive), PATIENCE_SECONDS)

    async def slow(self, path: str, role: Role, part: bytes = b"{") -> Any:
        """Ask with a body of which one part comes, and then nothing."""
        parts = [part]

        async def receive() -> Any:
            if not parts:
                self.stalled += 1
                self.changed.set()
                await asyncio.Event().wait()
            return {"type": "http.request", "body": parts.pop(), "more_body": True}

        return await self.ask("POST", path, role, receive)

    async def until_stalled(self, count: int) -> None:
        """Wait until so many bodies stall."""
        while self.stalled < count:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), PATIENCE_SECONDS)


def test_slow_bodies_keep_nobody_waiting(world: World) -> None:
    """A token with a hundred bodies that stop holds some places: other tokens, erasures and health are answered."""

    async def attack() -> None:
        sender = Sender(world)
        slow = [asyncio.create_task(sender.slow("/v1/predictions", "predict")) for _ in range(SLOW)]
        await sender.until_stalled(PREDICTIONS.token_bodies)
        assert (await sender.whole("GET", "/healthz", None))[0] == 200
        assert (await sender.whole("POST", "/v1/predictions", "federate", points()))[0] == 200
        assert (await sender.whole("POST", "/v1/erasures", "erase", {"subjects": ["secret-person-001"]}))[0] == 202
        assert sender.stalled == PREDICTIONS.token_bodies
        refused = [each.result() for each in slow if each.done()]
        assert [(status, reported["error"]["kind"]) for status, reported in refused] == [(429, "rate_limited")] * 20
        for each in slow:
            each.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert (await sender.whole("POST", "/v1/predictions", "predict", points()))[0] == 200

    asyncio.run(attack())


def test_slow_erasures_delay_no_other(world: World) -> None:
    """The same of bodies of erasure requests: another token's request is accepted."""

    async def attack() -> None:
        sender = Sender(world)
        slow = [asyncio.create_task(sender.slow("/v1/erasures", "officer")) for _ in range(SLOW)]
        await sender.until_stalled(CHANGES.token_bodies)
        assert (await sender.whole("POST", "/v1/erasures", "erase", {"subjects": ["secret-person-002"]}))[0] == 202
        assert (await sender.whole("POST", "/v1/predictions", "predict", points()))[0] == 200
        for each in slow:
            each.cancel()
        await asyncio.gather(*slow, return_exceptions=True)

    asyncio.run(attack())


def test_a_body_that_stops_is_given_up(world: World) -> None:
    """After [serve] body_seconds the caller gets an error, and may try again."""

    async def attack() -> None:
        sender, loop = Sender(world), asyncio.get_running_loop()
        assert isinstance(loop, SkippingLoop)
        slow = [asyncio.create_task(sender.slow("/v1/predictions", "predict")) for _ in range(3)]
        await sender.until_stalled(3)
        loop.skipped = ServeSettings().body_seconds
        answers = await asyncio.gather(*slow)
        assert [(status, reported["error"]["kind"]) for status, reported in answers] == [(408, "too_slow")] * 3
        assert (await sender.whole("POST", "/v1/predictions", "predict", points()))[0] == 200

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(attack())


def test_who_waits_for_a_turn_does_not_wait_for_ever() -> None:
    """A body whose turn does not come in [serve] body_seconds is refused, and leaves no trace."""

    async def queue() -> None:
        loop, settings = asyncio.get_running_loop(), ServeSettings()
        assert isinstance(loop, SkippingLoop)
        lane = Lane("predictions", replace(PREDICTIONS, token_bodies=1), settings)

        async def receive() -> Any:
            return {"type": "http.request", "body": b" " * 100_000, "more_body": False}

        async def wait() -> None:
            async with lane.body(Request({"type": "http", "headers": []}, receive), "token"):
                pass

        async with lane.body(Request({"type": "http", "headers": []}, receive), "token"):
            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0)
            loop.skipped = settings.body_seconds
            with pytest.raises(Refused, match="wait for their turn") as caught:
                await waiting
            assert caught.value.problem.status == 429
        await wait()

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(queue())


@pytest.mark.parametrize(("part_bytes", "status"), [(1, 408), (10 * LEAST_BYTES_PER_SECOND, 422)])
def test_a_long_body_has_the_time_that_it_needs(world: World, part_bytes: int, status: int) -> None:
    """A body that keeps coming is read to its end, however long it takes; one that trickles is not."""

    async def attack() -> None:
        loop, left = asyncio.get_running_loop(), 5
        assert isinstance(loop, SkippingLoop)

        async def receive() -> Any:
            nonlocal left
            loop.skipped += ServeSettings().body_seconds - 1
            await asyncio.sleep(0)
            left -= 1
            body = b"{}" if not left else b" " * part_bytes
            return {"type": "http.request", "body": body, "more_body": left > 0}

        assert (await Sender(world).ask("POST", "/v1/predictions", "predict", receive))[0] == status

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(attack())


def test_a_class_has_its_own_room() -> None:
    """More requests of a class than it takes are refused at once, and all classes together leave room for health."""
    lane = Lane("predictions", replace(PREDICTIONS, requests=1), ServeSettings())
    with lane.entered():
        with pytest.raises(Refused, match="1 predictions under way") as caught, lane.entered():
            pass
        assert caught.value.problem.status == 503
    with lane.entered():
        assert sum(each.requests for each in (PREDICTIONS, CHANGES, READS, SIGN_INS, STREAMS)) < ONGOING
        assert all(each.token_bodies + each.token_waiting < each.requests for each in (PREDICTIONS, CHANGES, READS))
