"""Sites with their own servers, in threads of this process, which record what crosses their boundary."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.config.sites import ListedSite
from cluster.coordinator_actor.log_lines import LogLines
from cluster.coordinator_actor.resident import Resident
from cluster.runtime.system import SystemClock
from cluster.serving.app import build_app
from cluster.serving.erasures import Accepting
from cluster.serving.service import Service, open_service
from cluster.tokens import TokenRegister
from cluster.writer.stores import open_objects
from tests.serving.world import coordinator_of
from tests.sites.near.site_folders import SiteFolders


@dataclass(frozen=True, slots=True)
class PassedRequest:
    """One request, and what was answered."""

    method: str
    path: str
    headers: Mapping[str, str]
    asked: bytes
    status: int
    answered: bytes


@dataclass(slots=True)
class SiteProxy:
    """What stands between a site's server and the world: it writes down, holds up, cuts and forges."""

    app: ASGIApp
    crossed: list[PassedRequest] = field(default_factory=list)
    is_open: threading.Event = field(default_factory=threading.Event)
    """Nothing is answered while it is clear."""
    forged: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """Status and body in place of an answer, by path."""
    cut: set[str] = field(default_factory=set)
    """Paths at which the connection ends in the middle of the answer."""

    def __post_init__(self) -> None:
        self.is_open.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through."""
        asked = await _body(receive)
        await asyncio.to_thread(self.is_open.wait)
        status, answered = 0, b""

        async def replayed() -> Message:
            return {"type": "http.request", "body": asked, "more_body": False}

        async def noted(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                answered += message.get("body", b"")
            if scope["path"] in self.cut and message["type"] == "http.response.body":
                await send({**message, "body": message["body"][: len(message["body"]) // 2], "more_body": True})
                raise ConnectionError
            await send(message)

        if scope["path"] in self.forged:
            await _answer(noted, *self.forged[scope["path"]])
        else:
            await self.app(scope, replayed, noted)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.crossed.append(PassedRequest(scope["method"], scope["path"], headers, asked, status, answered))


async def _body(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _answer(send: Send, status: int, body: bytes) -> None:
    length = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": length})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def listening(app: Any, **settings: Any) -> Iterator[int]:
    """Give the port at which ``app`` is served."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", **settings))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:  # of a test that fails as well: the thread would keep the process from ending
            server.should_exit = True
            thread.join()


@dataclass(slots=True)
class ServedSite:
    """One site."""

    site: ListedSite
    resident: Resident
    service: Service
    boundary: SiteProxy
    port: int

    @property
    def tokens(self) -> TokenRegister:
        """The register of tokens for its server."""
        return TokenRegister(open_objects(self.site.specification), SystemClock())


@dataclass(slots=True)
class Served:
    """All sites of a federation, each with its coordinator and its server."""

    site_folders: SiteFolders
    sites: dict[str, ServedSite]
    settings: str = ""
    each: str = ""

    def specify(self, *, settings: str = "", each: str = "", **urls: str) -> Path:
        """Write the specification in which every site has the url of its server, or the one given."""
        own = {
            name: f'url = "{urls.get(name, f"http://127.0.0.1:{served.port}")}"\ntoken_file = "{name}.token"\n'
            for name, served in self.sites.items()
        }
        config = self.site_folders.specify(settings=f"{self.settings}\n{settings}", each=f"{self.each}\n{each}")
        text = config.read_text(encoding="utf-8")
        for name, lines in own.items():
            text = text.replace(f'name = "{name}"\n', f'name = "{name}"\n{lines}')
        config.write_text(text, encoding="utf-8")
        return config

    def hand_over(self, name: str, token: str) -> None:
        """Write the federation's token for a site where its specification says."""
        path = self.site_folders.folder / f"{name}.token"
        path.write_text(f"{token}\n", encoding="ascii")
        path.chmod(0o600)

    def link_site(self, name: str) -> ListedSite:
        """Return a site as the federation reads it."""
        return self.site_folders.site(name)


@contextmanager
def served(site_folders: SiteFolders, *, settings: str = "", each: str = "") -> Iterator[Served]:
    """Train every site and serve it; tokens are handed over, the specification is written."""
    site_folders.specify(settings=settings, each=each)
    with ExitStack() as stack:
        sites = {name: stack.enter_context(_site(site_folders.site(name))) for name in site_folders.names}
        made = Served(site_folders, sites, settings, each)
        for name, site in sites.items():
            made.hand_over(name, site.tokens.create("federate", days=1).text)
        made.specify()
        yield made


@contextmanager
def _site(site: ListedSite) -> Iterator[ServedSite]:
    resident = coordinator_of(site.specification)
    accepting: Accepting = resident
    service = open_service(site.specification, lambda: accepting, site=site.settings)
    boundary = SiteProxy(build_app(service, LogLines(site.specification.name, service.clock, io.StringIO())))
    try:
        with listening(boundary) as port:
            try:
                yield ServedSite(site, resident, service, boundary, port)
            finally:
                boundary.is_open.set()
    finally:
        service.close()
        resident.stop()
