"""Names in a bucket: the store's address, and the translation between keys and full names.

<prefix>/<key>             an object
<prefix>/.leases/<name>    a lease: outside the grammar of keys, so never confused with an object
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from storage.errors import Invalid
from storage.objects import ObjectKey, is_object_key, key_segment, object_key

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_LEASES = ".leases"
_FORMS = "Write 's3://bucket/prefix'."
_PREFIX_BYTES = 300


@dataclass(frozen=True, slots=True)
class S3Names:
    """All names under one prefix of a bucket; ``prefix`` has no slashes at its ends, and may be empty."""

    prefix: str

    def name(self, key: ObjectKey) -> str:
        """Return the full name of ``key``. Raises ``Invalid`` for a key outside the grammar."""
        return self.start + object_key(key)

    def lease(self, right: str) -> str:
        """Return the full name of the lease on ``right``. Raises ``Invalid`` when that cannot be a segment of a key."""
        return f"{self.start}{_LEASES}/{key_segment(right)}"

    def key(self, name: str) -> ObjectKey | None:
        """Return the key whose full name is ``name``; None when it is not the name of a key."""
        text = name.removeprefix(self.start)
        return ObjectKey(text) if name.startswith(self.start) and is_object_key(text) else None

    def foreign(self, name: str) -> str | None:
        """Return ``name`` without the prefix if this system cannot have written it; None if it can."""
        text = name.removeprefix(self.start)
        folder, _, right = text.partition("/")
        ours = is_object_key(text) or (folder == _LEASES and "/" not in right and is_object_key(right))
        return None if ours else text or "/"

    @property
    def start(self) -> str:
        """The start of every full name."""
        return f"{self.prefix}/" if self.prefix else ""


def may_start_a_key(text: str) -> bool:
    """Return whether a key can start with ``text``: servers treat other prefixes differently."""
    folder, slash, rest = text.rpartition("/")
    return (not slash or is_object_key(folder)) and (not rest or is_object_key(rest))


def bucket_and_prefix(location: str) -> tuple[str, str]:
    """Return bucket and prefix of ``s3://bucket/prefix``. Raises ``Invalid`` for any other form."""
    parts = urlsplit(location)
    if parts.scheme.lower() != "s3" or "?" in location or "#" in location:
        raise Invalid("an S3 location is a bucket and a prefix", _FORMS, store=location)
    return parts.netloc, parts.path.strip("/")


def check_bucket_and_prefix(bucket: str, prefix: str) -> None:
    """Raise ``Invalid`` unless bucket and prefix are names that every server accepts."""
    if not _BUCKET.fullmatch(bucket):
        allowed = "3 to 63 lower-case letters, digits, '.' and '-'"
        raise Invalid(f"a bucket's name has {allowed}", _FORMS, bucket=repr(bucket))
    segments = prefix.split("/") if prefix else []
    if len(prefix) > _PREFIX_BYTES or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise Invalid(
            f"a prefix has segments of letters, digits, '.', '_' and '-', {_PREFIX_BYTES} characters in all",
            _FORMS,
            prefix=repr(prefix[:80]),
        )


def check_endpoint(endpoint: str) -> None:
    """Raise ``Invalid`` unless ``endpoint`` is just the address of a server; the error never shows a password."""
    parts = urlsplit(endpoint)
    plain = parts.scheme in {"http", "https"} and parts.hostname and parts.path in {"", "/"}
    if parts.username is not None or parts.password is not None or "@" in endpoint:
        raise Invalid(
            "an endpoint holds no credentials",
            "Set them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile.",
        )
    if not plain or parts.query or parts.fragment:
        raise Invalid(
            "an endpoint is a server's address", "Write 'https://host' or 'http://host:port'.", endpoint=repr(endpoint)
        )
