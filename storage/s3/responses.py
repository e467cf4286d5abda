"""Translates S3's answers, as boto3 returns them, into the types of ``storage.s3.bucket``, and conditions back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from storage.objects import VersionTag
from storage.s3.bucket import Listed, Mark, PutOutcome, PutReply, Refusal, Upload, Version

S3Answer = Mapping[str, Any]
"""One answer, parsed."""

_NONCE, _SHA256, _REPLACED = "sisa-nonce", "sisa-sha256", "sisa-replaced"

_HEX_32, _HEX_64 = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{64}")

_DATE = re.compile(r"(?:[A-Za-z]+,)?[^,]+")

_MARKERS = {
    "NextContinuationToken": "ContinuationToken",
    "NextKeyMarker": "KeyMarker",
    "NextVersionIdMarker": "VersionIdMarker",
    "NextUploadIdMarker": "UploadIdMarker",
}
"""For each field that says where a page of a listing ended: the parameter that continues from there."""


def condition_of(expected: VersionTag | None) -> dict[str, str]:
    """Return the condition of a put as parameters."""
    return {"IfNoneMatch": "*"} if expected is None else {"IfMatch": f'"{expected}"'}


def tag_of(answer: S3Answer) -> VersionTag:
    """Return the tag of the object in an answer."""
    return VersionTag(str(answer["ETag"]).removeprefix("W/").strip('"'))  # proxies that compress weaken tags


def landed(answer: S3Answer) -> PutReply:
    """Return the reply to a successful put; a success without an ETag counts as unknown."""
    if not answer.get("ETag"):
        return PutReply(outcome=PutOutcome.DOUBTFUL, cause="NoTag")
    return PutReply(outcome=PutOutcome.LANDED, tag=tag_of(answer))


def metadata_of(mark: Mark) -> dict[str, str]:
    """Return the metadata that hold ``mark``."""
    metadata = {_NONCE: mark.nonce, _SHA256: mark.sha256}
    return metadata if mark.replaced is None else metadata | {_REPLACED: mark.replaced}


def mark_of(answer: S3Answer) -> Mark | None:
    """Return the mark of the object in an answer; None when it is missing or incomplete."""
    metadata = answer.get("Metadata", {})
    if not (_HEX_32.fullmatch(metadata.get(_NONCE, "")) and _HEX_64.fullmatch(metadata.get(_SHA256, ""))):
        return None
    replaced = metadata.get(_REPLACED)
    return Mark(
        nonce=metadata[_NONCE],
        sha256=metadata[_SHA256],
        replaced=None if replaced is None else VersionTag(replaced),
    )


def headers_of(answer: S3Answer) -> Mapping[str, str]:
    """Return an answer's HTTP headers, names in lower case."""
    headers: Mapping[str, str] = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers


def server_time(answer: S3Answer) -> datetime | None:
    """Return when the server answered, by its own clock; None without a valid date."""
    return date_of(headers_of(answer).get("date", ""))


def date_of(text: str) -> datetime | None:
    """Return the date in a header; the first one if a server and its proxy both sent theirs.

    >>> date_of("Sun, 29 Nov 2026 04:28:47 GMT, Sun, 29 Nov 2026 04:28:47 GMT").isoformat()
    '2026-11-29T04:28:47+00:00'
    """
    found = _DATE.match(text)
    try:
        moment = parsedate_to_datetime(found[0] if found else text)
    except (ValueError, TypeError, IndexError, OverflowError):  # all that the email parser raises
        return None
    # HTTP's dates are in UTC, even if a server writes the zone as -0000 or not at all.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def age_of(answer: S3Answer) -> float | None:
    """Return how many seconds ago the object changed, both times by the server's clock."""
    now, changed = server_time(answer), answer.get("LastModified")
    if now is None or not isinstance(changed, datetime):
        return None
    return (now - changed).total_seconds()


def pages(ask: Callable[..., Any], **wanted: str) -> Iterator[S3Answer]:
    """Yield a listing's answers, page by page."""
    marker: dict[str, str] = {}
    while True:
        answer: S3Answer = ask(**wanted, **marker)
        yield answer
        following = {ours: answer[theirs] for theirs, ours in _MARKERS.items() if answer.get(theirs)}
        if not answer.get("IsTruncated") or following == marker or not following:
            return
        marker = following


def listed_of(answer: S3Answer) -> Iterator[Listed]:
    """Yield the objects of a page."""
    for each in answer.get("Contents", ()):
        yield Listed(name=each["Key"], payload_bytes=each["Size"])


def versions_of(answer: S3Answer, name: str) -> Iterator[Version]:
    """Yield the versions and delete markers of exactly ``name`` on a page."""
    for each in (*answer.get("Versions", ()), *answer.get("DeleteMarkers", ())):
        if each["Key"] == name:
            # A server without versions may leave the id out: its only version is called null.
            version = each.get("VersionId") or "null"
            yield Version(name=name, version=version, latest=bool(each.get("IsLatest", True)))


def uploads_of(answer: S3Answer) -> Iterator[Upload]:
    """Yield the unfinished multipart uploads of a page."""
    for each in answer.get("Uploads", ()):
        yield Upload(name=each["Key"], upload=each["UploadId"])


def wanted_gone(versions: Sequence[Version]) -> dict[str, Any]:
    """Return the parameter that asks to delete ``versions``."""
    return {"Objects": [{"Key": each.name, "VersionId": each.version} for each in versions]}


def refusals_of(answer: S3Answer, versions: Sequence[Version]) -> list[Refusal]:
    """Return the versions that an otherwise successful batch deletion did not delete."""
    by_id = {(each.name, each.version): each for each in versions}
    return [
        Refusal(
            version=by_id.get((each.get("Key", ""), each.get("VersionId") or "null"), versions[0]),
            code=each.get("Code") or "unknown",
        )
        for each in answer.get("Errors", ())
    ]


def versioning_of(answer: S3Answer) -> Literal["off", "on", "suspended"]:
    """Return a bucket's versioning."""
    status = answer.get("Status")
    return "on" if status == "Enabled" else "suspended" if status == "Suspended" else "off"


def retention_of(answer: S3Answer) -> str | None:
    """Return a version's retention in words, None when it has none."""
    kept = answer.get("Retention", {})
    until = kept.get("RetainUntilDate")
    return f"{str(kept.get('Mode', '')).lower()} retention until {until:%Y-%m-%d %H:%M} UTC" if until else None
