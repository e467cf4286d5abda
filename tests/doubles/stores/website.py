"""A server that is not an S3 server, for endpoints with a wrong address."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class WebsiteAnswer:
    """The answer of a server to any request."""

    status: int
    """0: an answer that is not HTTP."""
    text: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Website:
    """A server that is not an S3 server."""

    address: str = ""
    answer: WebsiteAnswer = field(default_factory=lambda: WebsiteAnswer(200))


@contextmanager
def running_website() -> Iterator[Website]:
    """Run such a server on a free port of 127.0.0.1."""
    site = Website()

    class Handler(BaseHTTPRequestHandler):
        def tell(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            answer = site.answer
            if not answer.status:
                self.wfile.write(answer.text)
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in {**answer.headers, "Content-Length": str(len(answer.text))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else answer.text)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = tell

        def log_message(self, format: str, *words: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), name="website", daemon=True).start()
        site.address = f"http://127.0.0.1:{server.server_port}"
        yield site
        server.shutdown()
