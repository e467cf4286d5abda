"""Key rotation: replaces the signing keys of all purposes together; repeating it is idempotent.

    log/rotations/<n>/begun    rotation n: when it began, and the last private key of each purpose it is to replace
    log/rotations/<n>/signed-<purpose>    the new public key, signed by the one it replaced
    log/rotations/<n>/ended    written when all of it is done: the ids of the keys that took over

1. Record which keys are to be replaced.
2. Make a private key for each purpose, and publish its public half.
3. Have the older keys sign the new ones, as far as the older private halves are available.
4. Destroy all older private halves.
5. Record that the rotation is complete.

The next call completes a rotation that a crash interrupted, and makes no further keys.
Everything that an older key has signed stays verifiable: rotation only ends the key's use.
A verifier that trusts a key can trust the keys that it signed, and need not get each new one separately.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from storage.digests import Json
from storage.errors import Corrupt, Invalid, ObjectMissing, OutcomeUnknown
from storage.objects import ObjectKey, ObjectStore, object_key
from storage.records import decode_record, encode_record
from storage.registers.create_once import create_or_read
from storage.registers.numbered import number_of, numbered_key
from storage.transparency.envelope import envelope_payload, open_envelope, sign_envelope
from storage.transparency.keys import KeyFolder, PublicKey, public_key_from_text, published_keys

ENDORSEMENT_TYPE: Final = "application/vnd.sisa-ray.public-key"
"""Payload type of an envelope in which a key signs the one that replaces it: the payload is ``PublicKey.to_text()``."""

ENDORSED: Final = "# endorsement: "
"""The start of a comment in a file of keys, which earlier releases ignore."""

_FOLDER = "log/rotations"
_ATTEMPTS = 64
_BEGUN_NAMES = frozenset({"number", "at", "last"})
_ENDED_NAMES = frozenset({"number", "at", "keys"})


class KeyState(Enum):
    """What may still be done with a key."""

    SIGNS = "signs"
    RETIRED = "retired"
    """Its private half is destroyed: it only verifies."""
    REPLACED = "replaced"
    """Another key signs, but the private half of this one still exists: a rotation was interrupted."""
    AWAY = "away"
    """No private key of its purpose is here; it may still sign elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatement:
    """What is known about one published key."""

    key: PublicKey
    state: KeyState
    since: str | None
    """When the rotation that made it began; None: it is one of the first keys."""
    endorsement: bytes | None = None
    """The envelope in which the key that it replaced signed it; None: no key did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rotation:
    """A rotation that has begun."""

    number: int
    at: str
    last: dict[str, int]
    """For each purpose, the highest number of a private key to destroy; 0: there was no key."""


def rotate(keys: KeyFolder, purposes: Sequence[str], at: str) -> tuple[PublicKey, ...]:
    """Return the keys that have taken over, one for each purpose. ``at`` is the current time.

    Raises:
        Corrupt: a key or a record of a rotation is damaged.
        OutcomeUnknown: the outcome of a write is unknown; a repetition continues.
    """
    rotation = _begun(keys, purposes, at)
    publics = [_taken_over(keys, purpose, rotation.last[purpose]) for purpose in purposes]
    for public in publics:
        _endorse(keys, rotation, public)
    for purpose in purposes:
        keys.destroy(purpose, rotation.last[purpose])
    ids = {public.purpose: public.key_id for public in publics}
    ended = encode_record({"number": rotation.number, "at": rotation.at, "keys": dict(sorted(ids.items()))})
    create_or_read(keys.public, _key(rotation.number, "ended"), ended)
    return tuple(publics)


def statements(keys: KeyFolder, purposes: Sequence[str]) -> tuple[KeyStatement, ...]:
    """Return what is known about all published keys: those that sign first, then by purpose and age.

    Raises ``Corrupt`` when a key or a record of a rotation is damaged.
    """
    since = dict(_times(keys))
    found = [
        replace(each, endorsement=signed.get(each.key))
        for purpose in purposes
        for signed in [endorsements(keys.public, purpose)]
        for each in _of(keys, purpose, since)
    ]
    return tuple(sorted(found, key=lambda each: (each.state is not KeyState.SIGNS, each.key.purpose, each.since or "")))


def key_text(key: PublicKey, endorsement: bytes | None) -> str:
    """Return a key as in files of keys, after a comment with the envelope in which an older key signed it."""
    return key.to_text() if endorsement is None else f"{ENDORSED}{endorsement.decode('ascii')}\n{key.to_text()}"


def endorsements(store: ObjectStore, purpose: str) -> dict[PublicKey, bytes]:
    """Return the envelopes in which keys of this purpose signed their successors, by the signed key.

    Raises ``Corrupt`` when one of them is damaged.
    """
    published = published_keys(store, purpose)
    found = {}
    for number in _numbers(store):
        key = _key(number, f"signed-{purpose}")
        try:
            envelope = store.get(key).payload
        except ObjectMissing:
            continue
        endorsed = _endorsed(envelope, published)
        if endorsed is None:
            raise _damaged(key)
        found[endorsed] = envelope
    return found


def trusted_through(pinned: Iterable[PublicKey], envelopes: Iterable[bytes]) -> frozenset[PublicKey]:
    """Return the pinned keys, the keys that they signed, and so on; other envelopes are skipped.

    A thief of a private key can sign a key of their own with it: pinning ends where a key was stolen.
    """
    trusted, left = frozenset(pinned), list(envelopes)
    while True:
        more = {key for each in left if (key := _endorsed(each, trusted)) is not None} - trusted
        if not more:
            return trusted
        trusted |= more


def _endorsed(envelope: bytes, keys: Iterable[PublicKey]) -> PublicKey | None:
    """Return the key that one of ``keys`` with the same purpose has signed; None if there is no such signature."""
    try:
        named = public_key_from_text(envelope_payload(envelope).decode("ascii"))
        open_envelope(envelope, ENDORSEMENT_TYPE, [key for key in keys if key.purpose == named.purpose])
    except (Corrupt, Invalid, UnicodeDecodeError):
        return None
    return named


def _endorse(keys: KeyFolder, rotation: _Rotation, public: PublicKey) -> None:
    """Do step 3 for one purpose."""
    old = keys.numbered(public.purpose, rotation.last[public.purpose])
    if old is not None and old.public != public:
        envelope = sign_envelope(public.to_text().encode("ascii"), ENDORSEMENT_TYPE, old)
        create_or_read(keys.public, _key(rotation.number, f"signed-{public.purpose}"), envelope)


def _begun(keys: KeyFolder, purposes: Sequence[str], at: str) -> _Rotation:
    """Do step 1, or return the rotation that is in progress."""
    number = max(_numbers(keys.public), default=0)
    if number == 0 or _fields(keys, number, "ended", _ENDED_NAMES) is not None:
        number += 1
    # Read before the record is made: a key that another rotation makes meanwhile must not be destroyed.
    last: dict[str, Json] = {purpose: max(keys.numbers(purpose), default=0) for purpose in purposes}
    key = _key(number, "begun")
    record = create_or_read(keys.public, key, encode_record({"number": number, "at": at, "last": last}))
    fields = decode_record(record, key, _BEGUN_NAMES)
    counts = _counts(fields["last"])
    if fields["number"] != number or counts is None or counts.keys() != set(purposes):
        raise _damaged(key)
    return _Rotation(number=number, at=str(fields["at"]), last=counts)


def _counts(value: Json) -> dict[str, int] | None:
    """Return ``value`` when it is an object whose values are whole numbers from 0 on, otherwise None."""
    if not isinstance(value, dict):
        return None
    # A bool is an int, but not a count.
    counts = {name: count for name, count in value.items() if type(count) is int and count >= 0}
    return counts if len(counts) == len(value) else None


def _taken_over(keys: KeyFolder, purpose: str, last: int) -> PublicKey:
    """Do step 2."""
    for _ in range(_ATTEMPTS):
        keys.create(purpose, last + 1)
        if (
            max(keys.numbers(purpose), default=0) > last
        ):  # otherwise the new key did not land: then no key may be destroyed
            return keys.current(purpose).public
    raise OutcomeUnknown(
        "the store does not say whether the new signing key was created", "Repeat the command.", purpose=purpose
    )


def _of(keys: KeyFolder, purpose: str, since: dict[str, str]) -> Iterator[KeyStatement]:
    private = keys.private_ids(purpose)
    for key in keys.published(purpose):
        if not private:
            state = KeyState.AWAY
        elif key.key_id not in private:
            state = KeyState.RETIRED
        else:
            state = KeyState.SIGNS if key.key_id == private[-1] else KeyState.REPLACED
        yield KeyStatement(key=key, state=state, since=since.get(key.key_id))


def _times(keys: KeyFolder) -> Iterator[tuple[str, str]]:
    for number in _numbers(keys.public):
        fields = _fields(keys, number, "ended", _ENDED_NAMES)
        if fields is None:
            continue
        if not isinstance(fields["keys"], dict):
            raise _damaged(_key(number, "ended"))
        yield from ((str(key_id), str(fields["at"])) for key_id in fields["keys"].values())


def _numbers(store: ObjectStore) -> list[int]:
    segments = {info.key.removeprefix(f"{_FOLDER}/").partition("/")[0] for info in store.list(f"{_FOLDER}/")}
    return sorted(number for segment in segments if (number := number_of(segment)) is not None)


def _fields(keys: KeyFolder, number: int, part: str, field_names: frozenset[str]) -> dict[str, Json] | None:
    key = _key(number, part)
    try:
        return decode_record(keys.public.get(key).payload, key, field_names)
    except ObjectMissing:
        return None


def _key(number: int, part: str) -> ObjectKey:
    return object_key(f"{numbered_key(_FOLDER, number)}/{part}")


def _damaged(key: ObjectKey) -> Corrupt:
    return Corrupt(
        "the record of a key rotation is another rotation's", "Restore it from a copy of the store.", key=key
    )
