"""Live pages: server-sent events, limited in total and for each token, in a class of their own.

One poller for each replica reads the state, at most once a second and only while there are listeners, and renders it
once for all of them. A listener that waits takes no thread. A stream ends when its token is over, or its client is
gone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from starlette.responses import StreamingResponse

from cluster.config.serve import ServeSettings
from cluster.serving.http_errors import HttpProblem, Refused
from cluster.serving.intake import Lane, Room
from storage.errors import SisaError

STREAMS: Final = Room(requests=64)
TOKEN_STREAMS: Final = 8
"""Live pages of one token at a time: more than one person needs, but too few to keep others out."""

LOOK_SECONDS: Final = 1.0
BEAT_SECONDS: Final = 5.0
"""How often a stream sends a sign of life and checks its token."""

LIVE: Final = "Live: this page shows changes by itself."
"""What a stream says while all is well."""

_RETRY_MS: Final = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveView:
    """What is shown at a moment."""

    position: object
    """Equal positions show the same."""
    text: str


class Streams:
    """The live pages of one replica. Belongs to one event loop."""

    def __init__(
        self,
        settings: ServeSettings,
        look: Callable[[object], Awaitable[LiveView | None]],
        *,
        look_seconds: float = LOOK_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        """``look`` returns what to show now; None when nothing has changed since the position that it is given."""
        self.lane = Lane("live pages", STREAMS, settings)
        self._look = look
        self._look_seconds = look_seconds
        self._beat_seconds = beat_seconds
        self._listeners: Counter[str] = Counter()
        self._changed = asyncio.Condition()
        self._shown: LiveView | None = None
        self._trouble = ""
        self._number = 0
        """Rises with every change of the two."""
        self._poller: asyncio.Task[None] | None = None

    @property
    def is_polling(self) -> bool:
        """Whether the state is looked at."""
        return self._poller is not None

    def answer(
        self, token_id: str, check: Callable[[], Awaitable[object]], headers: dict[str, str]
    ) -> StreamingResponse:
        """Return a stream for a token; ``check`` raises ``Refused`` once the token has expired or is revoked.

        Raises ``Refused`` with 429 when the token has too many streams.
        """
        if self._listeners[token_id] >= TOKEN_STREAMS:
            raise Refused(
                HttpProblem(
                    status=429,
                    kind="rate_limited",
                    message=f"this token has {TOKEN_STREAMS} live pages open",
                    remedy="Close some of them, or reload this page to see what is new.",
                )
            )
        headers = {**headers, "X-Accel-Buffering": "no"}
        return StreamingResponse(self._events(token_id, check), media_type="text/event-stream", headers=headers)

    async def _events(self, token_id: str, check: Callable[[], Awaitable[object]]) -> AsyncIterator[bytes]:
        with self._listening(token_id):
            yield f"retry: {_RETRY_MS}\n\n".encode()
            seen, shown, trouble = 0, None, None
            while True:
                await self._news(seen)
                try:
                    await check()
                except Refused as refused:
                    yield event("over", f"Not live: {refused.problem.message}. {refused.problem.remedy}")
                    return
                except SisaError as error:
                    yield event("trouble", f"Not live at the moment: {error.fact}.")
                    trouble = None
                    continue
                if self._number == seen:
                    yield b": alive\n\n"
                seen = self._number
                if trouble != self._trouble:
                    trouble = self._trouble
                    yield event("trouble", trouble or LIVE)
                if shown is not self._shown and self._shown is not None:
                    shown = self._shown
                    yield event("shown", shown.text)

    async def _news(self, seen: int) -> None:
        """Wait until there is more than was ``seen``, or until it is time for a sign of life."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._beat_seconds), self._changed:
                await self._changed.wait_for(lambda: self._number != seen)

    @contextmanager
    def _listening(self, token_id: str) -> Iterator[None]:
        self._listeners[token_id] += 1
        if self._poller is None:
            self._poller = asyncio.get_running_loop().create_task(self._poll())
        try:
            yield
        finally:
            self._listeners[token_id] -= 1
            self._listeners += Counter()  # drops tokens without a stream
            if not self._listeners and self._poller is not None:
                self._poller.cancel()
                self._poller, self._shown, self._trouble, self._number = None, None, "", 0

    async def _poll(self) -> None:
        while True:
            try:
                found, trouble = await self._look(self._shown and self._shown.position), ""
            except SisaError as error:
                found, trouble = None, f"Not live at the moment: {error.fact}."
            except Exception:  # noqa: BLE001  its text may quote data, and the pages' others are to go on
                found, trouble = None, "Not live at the moment, because of a fault in this server."
            if found is not None or trouble != self._trouble:
                self._shown, self._trouble = found or self._shown, trouble
                self._number += 1
                async with self._changed:
                    self._changed.notify_all()
            await asyncio.sleep(self._look_seconds)


def event(name: str, text: str) -> bytes:
    r"""Return one event of a stream.

    >>> event("shown", "one\ntwo")
    b'event: shown\ndata: one\ndata: two\n\n'
    """
    lines = "".join(f"data: {line}\n" for line in text.splitlines() or [""])
    return f"event: {name}\n{lines}\n".encode()
