"""The API's description explains itself: an example of every call, errors by name, and nothing from elsewhere."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from cluster.serving.description.errors import ERRORS
from cluster.serving.description.examples import examples_of
from cluster.serving.description.page import ASSETS
from shards.specification import DataSettings
from tests.serving.world import World, error_of

PUBLISHED = {
    "swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
    "swagger-ui.css": "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
}
"""SHA-256 of the files of swagger-ui-dist 5.35.0, which nobody changes here."""


@pytest.fixture(scope="module")
def document(still_world: World) -> dict[str, Any]:
    """The document of a federation of classes."""
    found: dict[str, Any] = still_world.client.get("/openapi.json").json()
    return found


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield f"{method.upper()} {path}", operation


def _validate(document: dict[str, Any], schema: dict[str, Any], value: object) -> None:
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def test_every_call_has_examples_that_fit(document: dict[str, Any]) -> None:
    """Each body that a call takes, and each that it answers with, has an example of the described shape."""
    for name, operation in _operations(document):
        contents = operation.get("requestBody", {}).get("content", {})
        if "application/json" in contents:
            content = contents["application/json"]
            assert content["examples"], name
            for example in content["examples"].values():
                _validate(document, content["schema"], example["value"])
        answers = [operation["responses"][status] for status in ("200", "202") if status in operation["responses"]]
        for answer in answers:
            for media_type, content in answer.get("content", {}).items():
                if media_type == "application/json":
                    _validate(document, content["schema"], content["example"])
                elif media_type == "text/plain":
                    assert content["example"], name


def test_errors_have_names_and_examples(document: dict[str, Any]) -> None:
    """Each error that a call may answer with is described, with an example of each kind."""
    for name, operation in _operations(document):
        for status, answer in operation["responses"].items():
            if int(status) < 400:
                continue
            examples = answer["content"]["application/json"]["examples"]
            assert examples.keys() == {each.kind for each in ERRORS[int(status)].examples}, name
            for kind, example in examples.items():
                assert example["value"]["error"]["kind"] == kind
                _validate(document, {"$ref": "#/components/schemas/Errors"}, example["value"])


def test_every_call_names_its_roles(document: dict[str, Any]) -> None:
    """Every call says first who may make it, and is listed under a heading that the document explains."""
    headings = {tag["name"] for tag in document["tags"]}
    for name, operation in _operations(document):
        assert operation["description"].startswith(("**Roles:** `", "Needs no token.")), name
        assert "security" in operation or operation["description"].startswith("Needs no token."), name
        assert set(operation["tags"]) <= headings
        assert not operation["summary"].endswith(".")


def test_nothing_refers_to_what_readers_do_not_have(document: dict[str, Any]) -> None:
    """No text of the document names a file of ours or a Python name, and none is missing its Markdown."""
    texts = [text for text in _texts(document) if re.search(r"docs/|``|\bSee `|docs/design", text)]
    assert texts == []


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            if name in {"description", "summary"} and isinstance(each, str):
                yield each
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def test_fields_are_explained(document: dict[str, Any]) -> None:
    """What pydantic leaves out of dataclasses is in the document: their fields' docstrings, inherited ones too."""
    schemas = document["components"]["schemas"]
    assert "generation below it may answer" in schemas["FederationStatus"]["properties"]["floor"]["description"]
    for shape in ("RequestStatus", "ErasureAnswer"):
        assert "Includes extensions" in schemas[shape]["properties"]["due_at"]["description"]
    assert "commitment" in schemas["ErasureAnswer"]["properties"]["salt"]["description"]


@pytest.mark.parametrize(
    ("settings", "answer"),
    [
        ({"target": "number", "label": "price"}, {"prediction", "spread"}),
        ({"target": "number", "label": ("price", "rent")}, {"prediction", "spread"}),
        ({"target": "multi_label", "label": ("red", "round")}, {"labels", "probabilities"}),
        ({"target": "cluster"}, {"prediction", "distance"}),
        ({"target": "recommend", "features": ("bread", "milk")}, {"items"}),
        ({"classes": ("a", "b", "c"), "label": "kind"}, {"prediction", "probabilities"}),
    ],
)
def test_examples_are_of_the_target(document: dict[str, Any], settings: dict[str, Any], answer: set[str]) -> None:
    """The example of an answer has the fields of the federation's own target."""
    data = DataSettings(**{"train": "train.parquet", "id": "id", "features": ("age", "income"), **settings})
    example = examples_of(data, sites=False)["POST /v1/predictions"]["answer"]["application/json"]
    assert example["predictions"][0].keys() == {"id", *answer}
    _validate(document, {"$ref": "#/components/schemas/Predictions"}, json.loads(json.dumps(example)))


def test_the_examples_of_changes_are_taken(world: World) -> None:
    """What the document says one may send is accepted as it stands."""
    document = world.client.get("/openapi.json").json()
    bodies = {
        name: [
            example["value"] for example in operation["requestBody"]["content"]["application/json"]["examples"].values()
        ]
        for name, operation in _operations(document)
        if "requestBody" in operation
    }
    for number, body in enumerate(bodies["POST /v1/erasures"]):
        answer = world.client.post(
            "/v1/erasures", json=body, headers=world.headers("officer", Idempotency_Key=f"er-{number}")
        )
        assert answer.status_code == 202, answer.text
    (people,) = bodies["POST /v1/subjects:lookup"]
    assert world.client.post("/v1/subjects:lookup", json=people, headers=world.headers("officer")).status_code == 200
    for change, status in (("extend", 200), ("hold", 409), ("release", 200)):  # er-2 is paused from the start
        (body,) = bodies[f"POST /v1/erasures/{{request_id}}/{change}"]
        answer = world.client.post(f"/v1/erasures/er-2/{change}", json=body, headers=world.headers("officer"))
        assert answer.status_code == status, answer.text


def test_the_page_loads_only_its_own_files(still_world: World) -> None:
    """Scripts and styles come from this server, and are those that Swagger UI's makers publish."""
    page = still_world.client.get("/docs")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    addresses = re.findall(r'(?:href|src)="([^"]*)"', page.text)
    assert {address for address in addresses if not address.startswith("data:")} == {
        "openapi.json",
        *(f"docs/{name}" for name in ASSETS),
    }
    assert "$ref" not in page.text
    for name, media_type in ASSETS.items():
        answer = still_world.client.get(f"/docs/{name}")
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, media_type)
        if name in PUBLISHED:
            assert hashlib.sha256(answer.content).hexdigest() == PUBLISHED[name]
    for name in ("page.py", "..%2Fpage.py", "LICENSE"):
        error_of(still_world.client.get(f"/docs/{name}"), 404, "missing")
