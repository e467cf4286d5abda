"""A proxy in front of an S3 server that injects faults of networks and servers into chosen requests.

It forwards whole HTTP messages, one per connection, from its own thread. Signed requests pass unchanged: their
``Host`` is the proxy's.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Literal
from urllib.parse import urlsplit

Action = Literal[
    "busy",
    "fails_before",
    "fails_after",
    "resets_before",
    "drops_after",
    "hangs_after",
    "truncates",
    "flips_a_bit",
    "error_in_success",
    "conflict",
    "clock_skew",
    "key_error",
]
"""503; 500 without and with effect; a reset without and a silence with effect; no answer within the client's time;
half an answer; one wrong bit in the payload; 200 around an error; 409; 403 for the clock; an error per deleted key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One complete HTTP message."""

    start: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def method(self) -> str:
        """The request's method."""
        return self.start.split(" ", 1)[0]

    @property
    def target(self) -> str:
        """The request's path and query."""
        return self.start.split(" ")[1]

    def header(self, name: str) -> str:
        """Return a header's value, or an empty string."""
        return next((value for each, value in self.headers if each.lower() == name), "")

    def to_bytes(self, *, without: tuple[str, ...] = ()) -> bytes:
        """Return the message as sent."""
        lines = [f"{name}: {value}" for name, value in self.headers if name.lower() not in without]
        return "\r\n".join([self.start, *lines, "", ""]).encode("latin-1") + self.body


@dataclass(slots=True, kw_only=True)
class Rule:
    """Injects a fault once, at the ``nth`` matching request."""

    method: str
    pattern: str
    """Regular expression to search for in path and query."""
    action: Action
    nth: int = 1

    def due(self, request: Message) -> bool:
        """Count the request if it matches; return whether the fault is due."""
        if self.nth < 1 or request.method != self.method or not re.search(self.pattern, request.target):
            return False
        self.nth -= 1
        return self.nth == 0


@dataclass(slots=True, kw_only=True)
class Chaos:
    """Injects faults into a share of the matching requests, at random."""

    random: Random
    share: float
    methods: tuple[str, ...]
    actions: tuple[Action, ...]

    def draw(self, request: Message) -> Action | None:
        """Return the fault for the request, if any."""
        if request.method not in self.methods or self.random.random() >= self.share:
            return None
        return self.random.choice(self.actions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirk:
    """A permanent peculiarity of a server."""

    refuses: Callable[[Message], tuple[int, str, str] | None] = lambda _: None
    """Returns status, code and text of the error for a request, if any."""
    request: Callable[[Message], Message] = lambda message: message
    """Returns the request to forward."""
    answer: Callable[[bytes], bytes] = lambda head: head
    """Returns the changed first line and headers of an answer."""


@dataclass(slots=True)
class FaultProxy:
    """The proxy's rules and its record; safe to change from the test's thread between requests."""

    upstream: str
    """The server's endpoint."""
    rules: list[Rule] = field(default_factory=list)
    chaos: Chaos | None = None
    drops_conditions: bool = False
    """Whether it forwards requests without ``If-Match`` and ``If-None-Match``, as some gateways do."""
    quirk: Quirk = Quirk()
    struck: list[Action] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """Method and target of every request."""
    endpoint: str = ""

    def plan(self, *rules: Rule) -> None:
        """Replace the rules and forget the record."""
        self.rules[:] = rules
        self.struck.clear()
        self.requests.clear()

    def action(self, request: Message) -> Action | None:
        """Record the request; return the fault to inject."""
        self.requests.append(f"{request.method} {request.target}")
        due = [rule.action for rule in self.rules if rule.due(request)]
        drawn = due[0] if due else self.chaos.draw(request) if self.chaos else None
        if drawn is not None:
            self.struck.append(drawn)
        return drawn

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the single request of a connection."""
        try:
            request = await _read_request(reader, writer)
            if request is not None:
                await self._answer(request, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # client or server has closed the connection
        finally:
            writer.close()

    async def _answer(self, request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        action = self.action(request)
        if action == "resets_before":
            writer.transport.abort()
        elif action in _INSTEAD:
            writer.write(_INSTEAD[action](request))
            await writer.drain()
        elif (refused := self.quirk.refuses(request)) is not None:
            writer.write(_error(refused[0], refused[1], request, refused[2]))
            await writer.drain()
        else:
            if action == "flips_a_bit" and request.body:
                request = _flipped(request)
            head, end, body = (await self._forward(self.quirk.request(request))).partition(b"\r\n\r\n")
            answer = self.quirk.answer(head) + end + body
            await _return(answer, action, request, reader, writer)

    async def _forward(self, request: Message) -> bytes:
        place = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        left_out = ("if-match", "if-none-match") if self.drops_conditions else ()
        whole = request.to_bytes(without=("connection", "expect", *left_out))
        head, _, body = whole.partition(b"\r\n\r\n")
        writer.write(head + b"\r\nConnection: close\r\n\r\n" + body)
        await writer.drain()
        try:
            return await reader.read(-1)
        finally:
            writer.close()


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """Run a proxy on a free port of 127.0.0.1."""
    proxy = FaultProxy(upstream)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(proxy.serve, "127.0.0.1", 0))
    proxy.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever, name="fault proxy", daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Message | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    start, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
    request = Message(start=start, headers=headers, body=b"")
    if request.header("expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    length = int(request.header("content-length") or 0)
    return Message(start=start, headers=headers, body=await reader.readexactly(length))


async def _return(
    answer: bytes, action: Action | None, request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Return the server's answer, or what the fault leaves of it."""
    head, end, body = answer.partition(b"\r\n\r\n")
    match action:
        case "drops_after":
            return
        case "hangs_after":
            await reader.read()  # until the client gives up
            return
        case "fails_after":
            answer = _error(500, "InternalError")
        case "truncates":
            answer = head + end + body[: len(body) // 2] if body else answer[: len(answer) // 2]
        case "flips_a_bit" if not request.body:
            middle = len(body) // 2
            answer = head + end + body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        case _:
            pass
    writer.write(answer)
    await writer.drain()


def _flipped(request: Message) -> Message:
    middle = len(request.body) // 2
    body = request.body[:middle] + bytes([request.body[middle] ^ 1]) + request.body[middle + 1 :]
    return Message(start=request.start, headers=request.headers, body=body)


def _error(status: int, code: str, request: Message | None = None, message: str = "planned") -> bytes:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return _whole(status, text, request)


def _whole(status: int, text: str, request: Message | None) -> bytes:
    body = text.encode()
    head = f"HTTP/1.1 {status} Planned\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
    shown = b"" if request is not None and request.method == "HEAD" else body
    return f"{head}Connection: close\r\n\r\n".encode() + shown


def _key_errors(request: Message) -> bytes:
    keys = re.findall(rb"<Key>(.*?)</Key>(?:<VersionId>(.*?)</VersionId>)?", request.body)
    errors = "".join(
        f"<Error><Key>{key.decode()}</Key><VersionId>{version.decode()}</VersionId><Code>InternalError</Code></Error>"
        for key, version in keys
    )
    return _whole(200, f'<?xml version="1.0" encoding="UTF-8"?>\n<DeleteResult>{errors}</DeleteResult>', request)


_INSTEAD: dict[Action | None, Callable[[Message], bytes]] = {
    "busy": lambda request: _error(503, "SlowDown", request),
    "fails_before": lambda request: _error(500, "InternalError", request),
    "error_in_success": lambda request: _error(200, "InternalError", request),
    "conflict": lambda request: _error(409, "ConditionalRequestConflict", request),
    "clock_skew": lambda request: _error(403, "RequestTimeTooSkewed", request),
    "key_error": _key_errors,
}
"""The faults that the proxy answers itself, without forwarding the request."""
