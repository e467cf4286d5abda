"""No request, by the OpenAPI document or against it, and no sequence of bytes makes the server itself fail."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from cluster.serving.bodies import JSON
from cluster.tokens import Role
from shards.data.messages import ARROW_STREAM
from tests.serving.description.fuzz import UNCHANGED, assert_answered, cases_of
from tests.serving.test_refusals import arrow
from tests.serving.world import ROLES, World
from tests.volume import examples

pytestmark = pytest.mark.volume

PATHS = [
    "/v1/predictions",
    "/v1/erasures",
    "/v1/erasures/{request_id}",
    "/v1/erasures/{request_id}/receipt",
    *(f"/v1/erasures/{{request_id}}/{change}" for change in ("hold", "release", "extend", "cancel")),
    "/v1/subjects:lookup",
    "/v1/status",
    "/v1/standing",
    "/v1/measure",
    "/v1/log/checkpoint",
    "/v1/keys",
    "/v1/checkpoints/{shard}/{sha256}",
    "/healthz",
]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "mode"), cases_of(PATHS))
def test_no_request_breaks_the_server(still_world: World, path: str, mode: GenerationMode) -> None:
    """Requests made from the document, good and bad, with every role: answered as documented, never with a 500."""
    # A federation's token may erase everyone: then nothing is left that could answer the tests that follow.
    may_empty = path == "/v1/erasures" and mode is GenerationMode.POSITIVE
    headers = [still_world.headers(role) for role in ROLES if not (may_empty and role == "federate")]
    assert_answered(still_world.client.app, path, mode, headers, most=examples(60, 20))


@settings(max_examples=examples(150, 50), suppress_health_check=UNCHANGED)
@given(
    role=st.sampled_from(ROLES),
    path=st.sampled_from(["/v1/predictions", "/v1/erasures", "/v1/subjects:lookup"]),
    media_type=st.sampled_from([JSON, ARROW_STREAM, "text/plain", ""]),
    body=st.binary(max_size=200)
    | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=4)).map(lambda edit: edited(*edit)),
    accept=st.sampled_from([JSON, ARROW_STREAM, "*/*", "text/*;q=0.1", ";;,,q="]),
)
def test_no_bytes_break_the_server(
    still_world: World, role: Role, path: str, media_type: str, body: bytes, accept: str
) -> None:
    """Any bytes as a body, edited Arrow streams among them: answered or refused, never with a 500."""
    headers = still_world.headers(role) | {"Content-Type": media_type, "Accept": accept}
    answer = still_world.client.post(path, content=body, headers=headers)
    assert answer.status_code < 500
    assert answer.status_code == 200 or answer.json()["error"]["kind"]


def edited(place: int, change: bytes) -> bytes:
    """Return an Arrow stream with some of its bytes changed."""
    payload = arrow()
    place %= len(payload)
    return payload[:place] + change + payload[place + len(change) :]
