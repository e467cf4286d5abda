"""Intake: limits on the requests of each class that a replica takes at once, and receiving their bodies.

Each class has its own limits: a caller that asks for too many predictions, or sends a body byte by byte, delays no
erasure request. Health checks belong to no class, so that there is always room for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from cluster.config.serve import ServeSettings
from cluster.serving.http_errors import RETRY_SECONDS, HttpProblem, Refused, too_large

ONGOING: Final = 2048
"""Requests that Ray Serve gives a replica at once: more than all classes take, so that health checks find room."""

LEAST_BYTES_PER_SECOND: Final = 64 * 1024
"""A body that arrives at this rate or faster is read to its end, regardless of its length."""

_SMALL_BYTES: Final = 16 * 1024
"""A body up to this size is handled on the event loop; larger ones take turns on threads."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The limits of one class of requests."""

    requests: int
    bodies: int = 0
    """Bodies that are being received, or are large and in use; bodies take most of the memory."""
    token_bodies: int = 0
    """The same for one token."""
    token_waiting: int = 0
    """Requests of one token that wait to send their body; further ones are refused. With ``token_bodies`` fewer than
    ``requests``, so that one token never takes all the room."""
    threads: int = 1
    """Large bodies that are read or written at the same time."""


PREDICTIONS: Final = Room(requests=1024, bodies=64, token_bodies=16, token_waiting=752, threads=2)
CHANGES: Final = Room(requests=384, bodies=32, token_bodies=16, token_waiting=272)
"""Erasure requests, changes to them, and look-ups."""
READS: Final = Room(requests=384)
"""Requests without a body."""


class _Token:
    """The requests of one token in progress."""

    def __init__(self, room: Room) -> None:
        self.here = 0
        self.bodies = asyncio.Semaphore(room.token_bodies)


class Lane:
    """One class of requests. Belongs to one event loop."""

    def __init__(self, name: str, room: Room, settings: ServeSettings) -> None:
        """``name`` is what refusals call the requests of this class."""
        self._name = name
        self._room = room
        self._settings = settings
        self._here = 0
        self._bodies = asyncio.Semaphore(room.bodies)
        self._tokens: dict[str, _Token] = {}
        self._threads = ThreadPoolExecutor(room.threads, "sisa-bodies")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Count one request. Raises ``Refused`` with 503 if there are too many."""
        if self._here >= self._room.requests:
            raise _busy(self._name, self._here)
        self._here += 1
        try:
            yield
        finally:
            self._here -= 1

    @asynccontextmanager
    async def body(self, request: Request, token_id: str) -> AsyncIterator[bytes]:
        """Yield the request's body; a large one counts as in use until the block ends.

        Raises ``Refused``: 408 when it does not arrive, 413 once it is known to be too large, 429 when the token has
        too many in progress.
        """
        token = self._tokens.setdefault(token_id, _Token(self._room))
        if token.here >= self._room.token_bodies + self._room.token_waiting:
            raise self._too_many()
        token.here += 1
        try:
            held = await self._places(token)
            try:
                payload = await self._received(request)
                if len(payload) <= _SMALL_BYTES:
                    _release(held)
                yield payload
            finally:
                _release(held)
        finally:
            token.here -= 1
            if not token.here:
                self._tokens.pop(token_id, None)

    async def handle(self, payload_bytes: int, act: Callable[[], _Result]) -> _Result:
        """Process a body of this size: a large one on one of few threads, because of the memory that it takes."""
        if payload_bytes <= _SMALL_BYTES:
            return act()
        return await asyncio.get_running_loop().run_in_executor(self._threads, act)

    async def _places(self, token: _Token) -> list[asyncio.Semaphore]:
        """Wait for the body's turn; return the places that it takes. Raises ``Refused`` with 429 if that takes long."""
        held = list[asyncio.Semaphore]()
        try:
            for places in (token.bodies, self._bodies):
                if places.locked():
                    async with asyncio.timeout(self._settings.body_seconds):
                        await places.acquire()
                else:  # a free place takes no time, so no timer either
                    await places.acquire()
                held.append(places)
        except BaseException as error:
            _release(held)
            if isinstance(error, TimeoutError):
                raise self._too_many() from None
            raise
        return held

    async def _received(self, request: Request) -> bytes:
        """Return the body, read up to the limit and no further."""
        most_bytes = self._settings.max_body_bytes
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > most_bytes:
            raise Refused(_too_long(most_bytes))
        parts, size = [], 0
        until = asyncio.get_running_loop().time() + self._settings.body_seconds
        has_more = True
        try:
            async with asyncio.timeout_at(until) as deadline:
                while has_more:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    part, has_more = message.get("body", b""), message.get("more_body", False)
                    size += len(part)
                    if size > most_bytes:
                        raise Refused(_too_long(most_bytes))
                    parts.append(part)
                    if has_more:
                        deadline.reschedule(until + size / LEAST_BYTES_PER_SECOND)
        except TimeoutError:
            raise Refused(self._too_slow(size)) from None
        return b"".join(parts)

    def _too_many(self) -> Refused:
        most = self._room.token_bodies
        return Refused(
            HttpProblem(
                status=429,
                kind="rate_limited",
                message=f"bodies of {most} {self._name} with this token are under way, and more wait for their turn",
                remedy="Send fewer at a time, each without a pause. Wait as long as Retry-After says.",
                headers={"Retry-After": str(RETRY_SECONDS)},
            )
        )

    def _too_slow(self, received_bytes: int) -> HttpProblem:
        return HttpProblem(
            status=408,
            kind="too_slow",
            message=(
                f"the body did not come in: {received_bytes:,} bytes of it in {self._settings.body_seconds:g} s and"
                f" 1 s for each {LEAST_BYTES_PER_SECOND:,} bytes"
            ),
            remedy="Send it without a pause, or raise [serve] body_seconds for a slow connection.",
            headers={"Connection": "close"},
        )


def _release(held: list[asyncio.Semaphore]) -> None:
    while held:
        held.pop().release()


def _too_long(most_bytes: int) -> HttpProblem:
    remedy = "Send several requests, or raise [serve] max_body_bytes."
    return too_large(f"the body has more than {most_bytes:,} bytes", remedy)


def _busy(name: str, most: int) -> Refused:
    return Refused(
        HttpProblem(
            status=503,
            kind="unavailable",
            message=f"this server has {most:,} {name} under way, and takes no more at once",
            remedy="Wait as long as Retry-After says, or raise [serve] replicas.",
            headers={"Retry-After": str(RETRY_SECONDS)},
        )
    )
