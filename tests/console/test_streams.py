"""Live pages: what listeners get, when streams end, and how many there may be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from cluster.config.serve import ServeSettings
from cluster.serving.console.sign_in import signed_out
from cluster.serving.console.streams import LIVE, TOKEN_STREAMS, LiveView, Streams
from cluster.serving.http_errors import Refused
from storage.errors import Unavailable


class _Stage:
    """What is to be shown, changed by the test."""

    def __init__(self) -> None:
        self.position = 1
        self.away = False
        self.looks = 0

    async def look(self, position: object) -> LiveView | None:
        self.looks += 1
        if self.away:
            raise Unavailable("the store is away", "Bring it back.")
        return None if position == self.position else LiveView(position=self.position, text=f"<b>{self.position}</b>")


async def _in_force() -> None:
    """Pass every token."""


def _run(act: Callable[[Streams, _Stage], Awaitable[None]], beat_seconds: float = 60.0) -> None:
    async def run() -> None:
        stage = _Stage()
        streams = Streams(ServeSettings(), stage.look, look_seconds=0.0, beat_seconds=beat_seconds)
        async with asyncio.timeout(60):
            await act(streams, stage)

    asyncio.run(run())


def _stream(streams: Streams, token: str = "t", check: Callable[[], Awaitable[object]] = _in_force) -> Any:  # noqa: S107
    return aiter(streams.answer(token, check, {}).body_iterator)


def _polls(streams: Streams) -> bool:
    return streams.is_polling


async def _next(stream: Any) -> str:
    part: bytes = await anext(stream)
    return part.decode()


def test_a_listener_gets_what_is_shown_and_each_change() -> None:
    """The first events are what is shown now; every change follows; a store that is away is said, and its return."""

    async def act(streams: Streams, stage: _Stage) -> None:
        stream = _stream(streams)
        assert (await _next(stream)).startswith("retry: ")
        assert await _next(stream) == f"event: trouble\ndata: {LIVE}\n\n"
        assert await _next(stream) == "event: shown\ndata: <b>1</b>\n\n"
        stage.position = 2
        assert await _next(stream) == "event: shown\ndata: <b>2</b>\n\n"
        stage.away = True
        assert await _next(stream) == "event: trouble\ndata: Not live at the moment: the store is away.\n\n"
        stage.away = False
        assert await _next(stream) == f"event: trouble\ndata: {LIVE}\n\n"
        await stream.aclose()

    _run(act)


def test_nobody_is_looked_for_when_nobody_listens() -> None:
    """One poller serves all listeners, and ends with the last of them."""

    async def act(streams: Streams, stage: _Stage) -> None:
        one, other = _stream(streams), _stream(streams, "u")
        for stream in (one, other):
            for _ in range(3):
                await _next(stream)
        assert _polls(streams)
        await one.aclose()
        assert _polls(streams)
        await other.aclose()
        assert not _polls(streams)
        looks = stage.looks
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert stage.looks == looks

    _run(act)


def test_a_stream_ends_with_its_token() -> None:
    """A token that is over ends its stream with a word about it, even if nothing else changes."""

    async def act(streams: Streams, stage: _Stage) -> None:
        over: list[str] = []

        async def check() -> None:
            if over:
                raise signed_out(over[0])

        stream = _stream(streams, check=check)
        for _ in range(3):
            await _next(stream)
        assert await _next(stream) == ": alive\n\n"
        over.append("the token was revoked")
        assert await _next(stream) == "event: over\ndata: Not live: the token was revoked. Sign in with a token.\n\n"
        assert [part async for part in stream] == []
        assert not _polls(streams)

    _run(act, beat_seconds=0.001)


def test_a_token_has_few_streams() -> None:
    """One token cannot take the places of others; a place that becomes free can be taken again."""

    async def act(streams: Streams, stage: _Stage) -> None:
        taken = [_stream(streams) for _ in range(TOKEN_STREAMS)]
        for stream in taken:
            await _next(stream)
        with pytest.raises(Refused, match="live pages open"):
            _stream(streams)
        await _next(other := _stream(streams, "u"))
        await taken.pop().aclose()
        taken.append(_stream(streams))
        for stream in (*taken, other):
            await stream.aclose()

    _run(act)
