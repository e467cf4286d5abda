"""The description of the API: the OpenAPI document, and a page for it that loads nothing from other servers."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from cluster.serving.schemas import SHAPES, described_features
from shards.specification import DataSettings

POLICY: Final = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}
"""No script may run on the page, because this API's tokens are worth stealing."""

_STYLE: Final = "body{font:15px/1.5 system-ui;max-width:60em;margin:2em auto;padding:0 1em}pre{background:#f4f4f4;\
padding:1em;overflow:auto}code{font-size:.9em}td{padding-right:1em;vertical-align:top}"


def openapi_of(app: FastAPI, data: DataSettings) -> Callable[[], dict[str, Any]]:
    """Return a function that makes the app's OpenAPI document, with the shapes of bodies, and bearer tokens.

    Where columns of ``data`` are encoded, the document says what each of them takes.
    """

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                servers=app.servers,
            )
            _, shapes = models_json_schema(
                [(shape, "validation") for shape in SHAPES], ref_template="#/components/schemas/{model}"
            )
            made["components"]["schemas"] |= shapes["$defs"]
            if data.encode:
                points, columns = (made["components"]["schemas"][name]["properties"] for name in ("Point", "Columns"))
                points["features"], columns["columns"] = described_features(data)
            made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            app.openapi_schema = made
        return app.openapi_schema

    return document


def page(document: dict[str, Any]) -> str:
    """Return the document as a page for people."""
    title = html.escape(document["info"]["title"])
    return "\n".join(
        [
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>',
            f"<h1>{title}</h1><p>{html.escape(document['info']['description'])}</p>",
            '<p>For programs: <a href="openapi.json">openapi.json</a></p>',
            *_operations(document["paths"]),
            "<h2>Bodies</h2>",
            *(
                f'<h3 id="{html.escape(name)}">{html.escape(name)}</h3><pre>{_shown(shape)}</pre>'
                for name, shape in sorted(document["components"]["schemas"].items())
            ),
        ]
    )


def _operations(paths: dict[str, Any]) -> Iterator[str]:
    for path, operations in paths.items():
        for method, operation in operations.items():
            yield f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>"
            yield f"<p>{html.escape(operation.get('description') or operation.get('summary', ''))}</p><table>"
            for status, answer in sorted(operation["responses"].items()):
                yield f"<tr><td>{html.escape(status)}<td>{html.escape(answer.get('description', ''))}"
            yield "</table>"
            if body := operation.get("requestBody"):
                yield f"<pre>{_shown(body['content'])}</pre>"


def _shown(value: object) -> str:
    return html.escape(json.dumps(value, indent=1))
