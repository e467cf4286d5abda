"""The parts of the S3 store that need no server: names, answers, and what each code means."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from storage.errors import Invalid, SisaError, StoreFull, Unavailable
from storage.objects import VersionTag, object_key
from storage.s3.bucket import Mark, PutOutcome, Version
from storage.s3.client import S3Store
from storage.s3.errors import Complaint, outcome_of, refusal
from storage.s3.names import S3Names, bucket_and_prefix, may_start_a_key
from storage.s3.responses import (
    age_of,
    landed,
    mark_of,
    metadata_of,
    pages,
    refusals_of,
    retention_of,
    server_time,
    tag_of,
    versions_of,
)

# ----------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/", ("bucket", "")),
        ("S3://bucket/some/prefix/", ("bucket", "some/prefix")),
        ("s3://my.bucket-1/Prefix_2", ("my.bucket-1", "Prefix_2")),
    ],
)
def test_a_location_is_bucket_and_prefix(location: str, place: tuple[str, str]) -> None:
    """The address gives the place, and the store's own location opens the same store."""
    assert bucket_and_prefix(location) == place
    store = S3Store(*place)
    assert S3Store(*bucket_and_prefix(store.location)) == store


@pytest.mark.parametrize(
    ("bucket", "prefix", "endpoint", "message"),
    [
        ("", "", None, "a bucket's name has 3 to 63"),
        ("Bucket", "", None, "a bucket's name has 3 to 63"),
        ("a/b", "", None, "a bucket's name has 3 to 63"),
        ("bucket", "a//b", None, "a prefix has segments"),
        ("bucket", "../a", None, "a prefix has segments"),
        ("bucket", ".leases", None, "a prefix has segments"),
        ("bucket", "x/" * 200 + "x", None, "a prefix has segments"),
        ("bucket", "", "localhost:8333", "an endpoint is a server's address"),
        ("bucket", "", "ftp://host", "an endpoint is a server's address"),
        ("bucket", "", "http://", "an endpoint is a server's address"),
        ("bucket", "", "http://host/path", "an endpoint is a server's address"),
        ("bucket", "", "http://host?x=y", "an endpoint is a server's address"),
        ("bucket", "", "https://id:hunter2@host", "an endpoint holds no credentials"),
    ],
)
def test_impossible_places_are_refused(bucket: str, prefix: str, endpoint: str | None, message: str) -> None:
    """An invalid bucket, prefix or address is refused at once, and a password in it is never shown."""
    with pytest.raises(Invalid, match=message) as caught:
        S3Store(bucket, prefix, endpoint)
    assert "hunter2" not in str(caught.value)


def test_locations_with_queries_are_refused() -> None:
    """An address with a query is refused."""
    for location in ("s3://bucket/a?versionId=1", "s3://bucket/a#b", "http://bucket/a"):
        with pytest.raises(Invalid, match="an S3 location is a bucket and a prefix"):
            bucket_and_prefix(location)


@pytest.mark.parametrize("prefix", ["", "one", "one/two"])
def test_names_and_keys_are_one_to_one(prefix: str) -> None:
    """A key's name gives the key back, a lease's name gives none, and neither is foreign."""
    names = S3Names(prefix)
    key = object_key("folder/object")
    assert names.key(names.name(key)) == key
    assert names.key(names.lease("writer")) is None
    assert names.foreign(names.name(key)) is None
    assert names.foreign(names.lease("writer")) is None
    assert names.foreign(f"{names.start}.leases/a/b") == ".leases/a/b"
    assert names.foreign(names.start) == "/"


@pytest.mark.parametrize("text", ["", "a", "a/", "a/b", "a-", "a.b/c_"])
def test_these_texts_start_keys(text: str) -> None:
    """A prefix is passed on when a key can start with it."""
    assert may_start_a_key(text)


@pytest.mark.parametrize("text", ["/", "//", "a//", "../", ".", "a/.", "A", "a b", "a\\"])
def test_these_texts_start_no_key(text: str) -> None:
    """Other prefixes never reach the server, because servers treat them differently."""
    assert not may_start_a_key(text)


# --------------------------------------------------------------------------------------------------------- answers


def test_pages_follow_their_markers() -> None:
    """Each page asks on where the last one ended; a server that does not move on ends the listing."""
    asked: list[dict[str, str]] = []
    answers: list[dict[str, Any]] = [
        {"IsTruncated": True, "NextKeyMarker": "a", "NextVersionIdMarker": "1"},
        {"IsTruncated": True, "NextKeyMarker": "b"},
        {"IsTruncated": False},
    ]

    def ask(**wanted: str) -> dict[str, Any]:
        asked.append(wanted)
        return answers[len(asked) - 1]

    assert list(pages(ask, Bucket="b")) == answers
    assert asked == [
        {"Bucket": "b"},
        {"Bucket": "b", "KeyMarker": "a", "VersionIdMarker": "1"},
        {"Bucket": "b", "KeyMarker": "b"},
    ]
    stuck = {"IsTruncated": True, "NextContinuationToken": "t"}
    assert len(list(pages(lambda **_: stuck, Bucket="b"))) == 2


@pytest.mark.parametrize("replaced", [None, VersionTag("abc")])
def test_a_mark_survives_as_metadata(replaced: VersionTag | None) -> None:
    """What a writer leaves in metadata is read back; half of it is nothing."""
    mark = Mark(nonce="0f" * 16, sha256="0f" * 32, replaced=replaced)
    metadata = metadata_of(mark)
    assert mark_of({"Metadata": metadata}) == mark
    assert mark_of({"Metadata": {**metadata, "sisa-nonce": "0f" * 15}}) is None
    assert mark_of({"Metadata": {**metadata, "sisa-sha256": ""}}) is None
    assert mark_of({}) is None


def test_a_success_without_a_tag_is_doubt() -> None:
    """A 200 that does not name what was written may be an error's, or a gateway's."""
    assert landed({}).outcome is PutOutcome.DOUBTFUL
    assert landed({"ETag": '"abc"'}).tag == "abc"


def test_ages_are_by_the_servers_clock() -> None:
    """An object's age is the answer's date minus its change; without either there is none."""
    changed = datetime(2026, 11, 23, 6, 0, 0, tzinfo=UTC)
    headers = {"ResponseMetadata": {"HTTPHeaders": {"date": "Mon, 23 Nov 2026 06:00:17 GMT"}}}
    assert age_of({"LastModified": changed, **headers}) == 17.0
    assert age_of({"LastModified": changed}) is None
    assert age_of(headers) is None
    assert age_of({"LastModified": changed, "ResponseMetadata": {"HTTPHeaders": {"date": "yesterday"}}}) is None


@pytest.mark.parametrize(
    "date",
    [
        "Sun, 29 Nov 2026 04:28:47 GMT",
        "Sun, 29 Nov 2026 04:28:47 GMT, Sun, 29 Nov 2026 04:28:48 GMT",
        "29 Nov 2026 04:28:47 GMT, 29 Nov 2026 04:28:47 GMT",
        "Sun, 29 Nov 2026 04:28:47 -0000",
        "Sun, 29 Nov 2026 04:28:47 -0000, Sun, 29 Nov 2026 04:28:47 -0000",
        "Sun, 29 Nov 2026 04:28:47",
        "Sun, 29 Nov 2026 05:28:47 +0100",
        "Sunday, 29-Nov-26 04:28:47 GMT",
        "Sun Nov 29 04:28:47 2026",
    ],
)
def test_dates_of_every_kind_are_read(date: str) -> None:
    """A date that is sent twice, without a zone or in one of HTTP's older forms is a time in UTC."""
    now = datetime(2026, 11, 29, 4, 28, 47, tzinfo=UTC)
    answer = {"ResponseMetadata": {"HTTPHeaders": {"date": date}}, "LastModified": datetime(2026, 11, 29, tzinfo=UTC)}
    assert server_time(answer) == now
    assert age_of(answer) == 4 * 3600 + 28 * 60 + 47


@pytest.mark.parametrize("date", ["", "yesterday", "0", ",", "Sun, 99 Nov 2026 99:99:99 GMT", "1, 2, 3", "Sun, "])
def test_an_unreadable_date_is_no_time(date: str) -> None:
    """An invalid date says nothing about the server's clock, and stops nothing."""
    assert server_time({"ResponseMetadata": {"HTTPHeaders": {"date": date}}}) is None


@pytest.mark.parametrize("tag", ['"abc"', "abc", 'W/"abc"'])
def test_tags_are_read_however_they_are_quoted(tag: str) -> None:
    """A tag without quotes, or weakened by a proxy, is the same tag."""
    assert tag_of({"ETag": tag}) == "abc"


def test_versions_are_of_the_name_alone() -> None:
    """A listing by prefix holds neighbours too; a missing id is the null version."""
    page = {
        "Versions": [{"Key": "a", "VersionId": "1", "IsLatest": False}, {"Key": "ab", "VersionId": "2"}],
        "DeleteMarkers": [{"Key": "a", "IsLatest": True}],
    }
    assert [(each.version, each.latest) for each in versions_of(page, "a")] == [("1", False), ("null", True)]


def test_refusals_are_read_from_a_success() -> None:
    """Errors per key name their version; one that names none counts for the first."""
    versions = [Version(name="a", version="1", latest=False), Version(name="a", version="2", latest=True)]
    answer = {"Errors": [{"Key": "a", "VersionId": "2", "Code": "AccessDenied"}, {"Code": "SlowDown"}]}
    assert [(each.version.version, each.code) for each in refusals_of(answer, versions)] == [
        ("2", "AccessDenied"),
        ("1", "SlowDown"),
    ]
    assert refusals_of({}, versions) == []


def test_a_retention_is_reported_in_words() -> None:
    """Mode and end are named; no retention is nothing."""
    until = datetime(2030, 1, 1, tzinfo=UTC)
    kept = {"Retention": {"Mode": "COMPLIANCE", "RetainUntilDate": until}}
    assert retention_of(kept) == "compliance retention until 2030-01-01 00:00 UTC"
    assert retention_of({}) is None


# ----------------------------------------------------------------------------------------------------------- codes


@pytest.mark.parametrize(
    ("code", "status", "outcome"),
    [
        ("PreconditionFailed", 412, PutOutcome.REFUSED),
        ("412", 412, PutOutcome.REFUSED),
        ("NoSuchKey", 404, PutOutcome.MISSING),
        ("ConditionalRequestConflict", 409, PutOutcome.NOT_DONE),
        ("BadDigest", 400, PutOutcome.NOT_DONE),
        ("RequestTimeout", 400, PutOutcome.NOT_DONE),
        ("NoSuchUpload", 404, PutOutcome.NOT_DONE),
        ("TooManyRequests", 429, PutOutcome.NOT_DONE),
        ("SlowDown", 503, PutOutcome.DOUBTFUL),
        ("InternalError", 500, PutOutcome.DOUBTFUL),
        ("InternalError", 200, PutOutcome.DOUBTFUL),
        ("504", 504, PutOutcome.DOUBTFUL),
        ("NotImplemented", 501, None),
        ("QuotaExceeded", 507, None),
        ("AccessDenied", 403, None),
        ("NoSuchBucket", 404, None),
    ],
)
def test_codes_have_fates(code: str, status: int, outcome: PutOutcome | None) -> None:
    """An answer that a server may give after it did the work leaves doubt; a plain refusal leaves no doubt."""
    assert outcome_of(Complaint(code=code, status=status)) is outcome


@pytest.mark.parametrize(
    ("code", "status", "kind", "message"),
    [
        ("NoSuchBucket", 404, Invalid, "the bucket does not exist.*Create it"),
        ("InvalidAccessKeyId", 403, Invalid, "does not accept these credentials.*AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", 403, Invalid, "does not accept these credentials"),
        ("ExpiredToken", 400, Unavailable, "credentials have run out.*Renew"),
        ("RequestTimeTooSkewed", 403, Unavailable, "clock and the store's differ.*NTP"),
        ("AccessDenied", 403, Unavailable, "does not allow this account.*delete objects and their versions"),
        ("403", 403, Unavailable, "does not allow this account"),
        ("QuotaExceeded", 403, StoreFull, "no room.*nothing was published"),
        ("XMinioStorageFull", 507, StoreFull, "no room"),
        ("PermanentRedirect", 301, Invalid, "another region.*AWS_REGION"),
        ("NotImplemented", 501, Unavailable, "does not know a request.*conditional puts"),
        ("SlowDown", 503, Unavailable, "overloaded or failing.*later"),
        ("Strange", 400, Invalid, "refuses the request.*endpoint"),
    ],
)
def test_codes_have_remedies(code: str, status: int, kind: type[SisaError], message: str) -> None:
    """Every refusal is a kind that says what to do, and names server, store and code."""
    error = refusal(Complaint(code=code, status=status), store="s3://bucket", server="http://host")
    assert type(error) is kind
    with pytest.raises(kind, match=message):
        raise error
    assert error.context == {"store": "s3://bucket", "server": "http://host", "code": code, "status": status}


@pytest.mark.parametrize(
    ("code", "status"),
    [("NotImplemented", 501), ("InvalidRequest", 400), ("InvalidArgument", 400), ("AccessDenied", 403)],
)
def test_refused_checksums_are_named(code: str, status: int) -> None:
    """A server that refuses checksums gets an error of its own, which names the setting that helps."""
    complaint = Complaint(code=code, status=status, request="PutObject", names_checksums=True)
    with pytest.raises(Unavailable, match=r"refuses the checksums .*AWS_REQUEST_CHECKSUM_CALCULATION.*when_required"):
        raise refusal(complaint, store="s3://bucket", server="http://host")


def test_a_body_in_pieces_that_is_refused_is_a_matter_of_checksums() -> None:
    """Over HTTPS checksums follow a body that is sent in pieces, for which older servers want its length."""
    complaint = Complaint(code="MissingContentLength", status=411, request="PutObject")
    with pytest.raises(Unavailable, match="refuses the checksums"):
        raise refusal(complaint, store="s3://bucket", server="http://host")


def test_a_spoiled_upload_is_no_refused_checksum() -> None:
    """A checksum that did not hold is damage on the way, and is tried again."""
    complaint = Complaint(code="BadDigest", status=400, request="PutObject", names_checksums=True)
    with pytest.raises(Unavailable, match="overloaded or failing"):
        raise refusal(complaint, store="s3://bucket", server="http://host")


def test_a_request_that_is_lacking_is_named() -> None:
    """Which request the server does not know stands in the error."""
    complaint = Complaint(code="NotImplemented", status=501, request="DeleteObjects")
    with pytest.raises(Unavailable, match=r"does not know a request .*request=DeleteObjects"):
        raise refusal(complaint, store="s3://bucket", server="http://host")
