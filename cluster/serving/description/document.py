"""The description of the API as an OpenAPI document: every call with its roles, examples, and errors by name."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, Final, get_args, get_type_hints

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from cluster.serving.description.examples import examples_of, with_examples
from cluster.serving.schemas import SHAPES, described_features
from shards.specification import DataSettings

_TAGS: Final[Mapping[str, tuple[str, str]]] = {
    "/v1/predictions": ("Predictions", "Answers that never use what was erased."),
    "/v1/erasures": ("Erasure requests", "Submit them, follow them, change them, and fetch their receipts."),
    "/v1/subjects": ("People", "What the federation holds of whom. Names are sent in bodies, never in addresses."),
    "/v1/status": ("State", "The state of the federation."),
    "/healthz": ("State", "The state of the federation."),
    "/v1/log": ("Evidence", "What an auditor needs to check receipts."),
    "/v1/keys": ("Evidence", "What an auditor needs to check receipts."),
    "/v1": ("Between servers", "For a federation of sites, whose server asks each site's server."),
}
"""By the beginning of the path, the longest first: the heading under which calls are shown, and its text."""

_ROLES: Final = re.compile(r"\s*(?:Roles?: (?P<roles>[a-z, ]+)|Needs no token)\.\s*$")


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
            schemas = made["components"]["schemas"] | shapes["$defs"]
            if data.encode:
                points, columns = (schemas[name]["properties"] for name in ("Point", "Columns"))
                points["features"], columns["columns"] = described_features(data)
            _describe_fields(schemas, app)
            made["components"] |= {"schemas": schemas, "securitySchemes": {"token": _BEARER}}
            made["tags"] = [{"name": name, "description": text} for name, text in dict(_TAGS.values()).items()]
            _complete(made["paths"], examples_of(data, sites="/v1/standing" not in made["paths"]))
            app.openapi_schema = made
        return app.openapi_schema

    return document


_BEARER: Final = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token, which the operator makes with 'sisa token create --role ROLE'. It decides what its holder"
    " may do: every call names the roles that may make it.",
}


def _complete(paths: dict[str, Any], examples: Mapping[str, Mapping[str, Any]]) -> None:
    """Give every call its heading, a summary, its roles and its examples."""
    for path, operations in paths.items():
        tag = next(_TAGS[start][0] for start in sorted(_TAGS, key=len, reverse=True) if path.startswith(start))
        for method, operation in operations.items():
            operation["tags"] = [tag]
            operation["summary"], operation["description"] = _split(operation["description"])
            with_examples(operation, examples[f"{method.upper()} {path}"])


def _split(text: str) -> tuple[str, str]:
    """Return an endpoint's docstring as a summary without a full stop, and the rest, with the roles in front."""
    found = _ROLES.search(text)
    said = text[: found.start()] if found else text
    summary, _, rest = said.partition(". " if ". " in said.partition("\n\n")[0] else "\n\n")
    roles = found and found["roles"]
    who = "**Roles:** " + ", ".join(f"`{role.strip()}`" for role in roles.split(",")) if roles else "Needs no token."
    return " ".join(summary.removesuffix(".").split()), f"{who}\n\n{rest.strip()}".strip()


def _describe_fields(schemas: dict[str, Any], app: FastAPI) -> None:
    """Put the docstrings of fields into the document: pydantic leaves those of plain dataclasses out."""
    for shape in _dataclasses(app):
        found = schemas.get(shape.__name__, {}).get("properties", {})
        for name, text in _docstrings(shape).items():
            if name in found and "description" not in found[name]:
                found[name]["description"] = text


def _dataclasses(app: FastAPI) -> set[type]:
    """Return the dataclasses that answers consist of."""
    seen: set[type] = set()
    waiting: list[Any] = [route.response_model for route in app.routes if isinstance(route, APIRoute)]
    while waiting:
        kind = waiting.pop()
        waiting.extend(get_args(kind))
        if isinstance(kind, type) and is_dataclass(kind) and kind not in seen:
            seen.add(kind)
            waiting.extend(get_type_hints(kind).values())
    return seen


def _docstrings(shape: type) -> dict[str, str]:
    """Return the docstrings of a class's fields, its own and those that it inherits, in Markdown."""
    found: dict[str, str] = {}
    for each in reversed(shape.__mro__[:-1]):
        found |= dict(_own_docstrings(each))
    return found


def _own_docstrings(shape: type) -> Iterator[tuple[str, str]]:
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(shape))).body
    assert isinstance(body, ast.ClassDef)
    for field, after in zip(body.body, body.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            yield field.target.id, " ".join(after.value.value.replace("``", "`").split())
