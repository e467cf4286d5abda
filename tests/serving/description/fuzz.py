"""Requests made from an OpenAPI document, good and bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

UNCHANGED = [HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much, HealthCheck.too_slow]
"""What need not be looked at where no example changes what the next one meets."""

_CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def cases_of(paths: Sequence[str]) -> list[tuple[str, GenerationMode]]:
    """Return each path with each kind of request; to one that takes nothing no bad request can be made."""
    return [(path, mode) for path in paths for mode in GenerationMode if (path, mode.value) != ("/healthz", "negative")]


def assert_answered(app: Any, path: str, mode: GenerationMode, headers: Sequence[Mapping[str, str]], most: int) -> None:
    """Ask what the document of ``app`` allows or forbids at ``path``; every answer is as documented, and none a 500."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operation = next(iter(schema[path].values()))

    @settings(max_examples=most, deadline=None, suppress_health_check=UNCHANGED)
    @given(case=operation.as_strategy(generation_mode=mode), headers=st.sampled_from(headers))
    def answers(case: Any, headers: dict[str, str]) -> None:
        case.call_and_validate(headers=headers, checks=_CHECKS)

    answers()
