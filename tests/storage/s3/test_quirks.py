"""Servers and proxies that differ from S3 in small ways: each works, or is refused by its own name."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from storage.errors import ObjectMissing, Unavailable
from storage.objects import object_key
from storage.s3.client import S3Store
from storage.s3.files import bucket_files
from storage.stores.probe import probe_store
from tests.doubles.stores.fault_proxy import FaultProxy, Message, Quirk, fault_proxy
from tests.doubles.stores.s3_servers import plain_client

pytestmark = [pytest.mark.s3, pytest.mark.usefixtures("no_waiting")]

KEY = object_key("folder/object")


@pytest.fixture(scope="module")
def running(moto_endpoint: str) -> Iterator[FaultProxy]:
    """A proxy in front of a server."""
    with fault_proxy(moto_endpoint) as proxy:
        yield proxy


@pytest.fixture
def proxy(running: FaultProxy) -> Iterator[FaultProxy]:
    """The proxy, which has no quirk afterwards."""
    yield running
    running.quirk = Quirk()


@pytest.fixture
def store(proxy: FaultProxy) -> S3Store:
    """An empty store behind the proxy."""
    return S3Store("plain", f"quirks/{secrets.token_hex(8)}", proxy.endpoint)


def use(store: S3Store) -> None:
    """Call every operation of the store."""
    tag = store.put_if_absent(KEY, b"first")
    store.put_if_match(KEY, b"second", tag)
    assert store.get(KEY).payload == b"second"
    with store.exclusive("writer", holder="a test"):
        pass
    store.delete(KEY)
    with pytest.raises(ObjectMissing, match="no such object"):
        store.get(KEY)


def header(name: str, pattern: str, becomes: str) -> Quirk:
    """Return the quirk of writing a header in another way."""
    whole = re.compile(rf"(?im)^({name}): *({pattern})\r?$".encode())
    return Quirk(answer=lambda head: whole.sub(becomes.encode(), head))


HEADERS = {
    "date twice": header("date", "[^\r]*", r"\1: \2\r\n\1: \2"),
    "date in zone -0000": header("date", "(.*)GMT", r"\1: \3-0000"),
    "date without a zone": header("date", "(.*) GMT", r"\1: \3"),
    "no date": header("date", "[^\r]*", "X-Was-Date: -"),
    "date of another age": header("date", "[^\r]*", r"\1: yesterday"),
    "last change twice": header("last-modified", "[^\r]*", r"\1: \2\r\n\1: \2"),
    "last change in zone -0000": header("last-modified", "(.*)GMT", r"\1: \3-0000"),
    "last change unreadable": header("last-modified", "[^\r]*", r"\1: yesterday"),
    "tag without quotes": header("etag", '"([^"\r]*)"', r"\1: \3"),
    "weak tag": header("etag", "[^\r]*", r"\1: W/\2"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers_in_other_words_change_nothing(case: str, proxy: FaultProxy, store: S3Store) -> None:
    """Dates that are sent twice, without a zone or not at all, and tags in other quotes are understood."""
    proxy.quirk = HEADERS[case]
    use(store)
    apart = store.describe(datetime.now(UTC)).clock_difference_seconds
    assert (apart is None) == (case in {"no date", "date of another age"})
    assert abs(apart or 0) < 3600


def without_quotes(request: Message) -> Message:
    """Return a request as a server takes it that wants tags without quotes."""
    headers = ((name, f'"{value}"' if name.lower() == "if-match" else value) for name, value in request.headers)
    return Message(start=request.start, headers=tuple(headers), body=request.body)


UNQUOTED = Quirk(
    refuses=lambda request: (412, "PreconditionFailed", "no") if request.header("if-match").startswith('"') else None,
    request=without_quotes,
)


def test_a_server_that_wants_tags_without_quotes_is_refused_by_name(proxy: FaultProxy, store: S3Store) -> None:
    """Replacing an object never works on it: the error says so, and does not suggest to try again."""
    proxy.quirk = UNQUOTED
    with pytest.raises(Unavailable, match=r"refuses to replace .*\(If-Match\): its conditional puts are not usable"):
        probe_store(store)


def test_data_on_such_a_server_are_refused_by_name(proxy: FaultProxy) -> None:
    """A file that has not changed is not called replaced."""
    client = plain_client(proxy.endpoint)
    name = f"quirks/{secrets.token_hex(8)}.csv"
    client.put_object(Bucket="plain", Key=name, Body=b"id,x\n")
    client.close()
    proxy.quirk = UNQUOTED
    files = bucket_files("plain", proxy.endpoint)
    file = files.find(name)
    assert file is not None
    with pytest.raises(Unavailable, match=r"refuses to read a file under the tag .*\(If-Match\)"):
        files.read(file, 0, 5)


def has_checksum(request: Message) -> bool:
    """Return whether a request comes with one of the checksums that S3 has had since 2022."""
    return any(name.lower().startswith(("x-amz-checksum", "x-amz-sdk-checksum")) for name, _ in request.headers)


NO_CHECKSUMS = {
    "named": (501, "NotImplemented", "A header you provided is not implemented: x-amz-checksum"),
    "not allowed": (400, "InvalidRequest", "Unsupported checksum algorithm"),
    "bodies in pieces": (411, "MissingContentLength", "You must provide the Content-Length HTTP header."),
}


@pytest.mark.parametrize("case", NO_CHECKSUMS)
def test_refused_checksums_are_named_and_can_be_left_out(case: str, proxy: FaultProxy, store: S3Store) -> None:
    """An older server is distinguished from one without conditional puts, and works once no checksums are sent."""
    answer = NO_CHECKSUMS[case]
    proxy.quirk = Quirk(refuses=lambda request: answer if has_checksum(request) else None)
    with pytest.raises(Unavailable, match=r"refuses the checksums .*AWS_REQUEST_CHECKSUM_CALCULATION.*when_required"):
        store.put_if_absent(KEY, b"first")
    use(replace(store, checksums="when_required"))


def test_a_refused_header_that_is_not_named_may_be_a_checksum(proxy: FaultProxy, store: S3Store) -> None:
    """Where the server does not say which header it means, both remedies are given."""
    proxy.quirk = Quirk(
        refuses=lambda request: (501, "NotImplemented", "A header you provided") if has_checksum(request) else None
    )
    with pytest.raises(Unavailable, match=r"or a header of it .*request=PutObject\]\. .*takes no checksums, set AWS_"):
        store.put_if_absent(KEY, b"first")


def test_batch_deletions_carry_the_digest_that_older_servers_ask_for(proxy: FaultProxy, store: S3Store) -> None:
    """A server that wants Content-MD5 with DeleteObjects deletes."""
    proxy.quirk = Quirk(
        refuses=lambda request: (
            (400, "InvalidRequest", "Missing required header for this request: Content-MD5")
            if "?delete" in request.target and not request.header("content-md5")
            else None
        )
    )
    use(store)


def test_a_server_without_batch_deletions_is_named(proxy: FaultProxy, store: S3Store) -> None:
    """The request that it does not know stands in the error."""
    proxy.quirk = Quirk(refuses=lambda request: (501, "NotImplemented", "no") if "?delete" in request.target else None)
    store.put_if_absent(KEY, b"first")
    with pytest.raises(Unavailable, match=r"does not know a request .*request=DeleteObjects"):
        store.delete(KEY)
