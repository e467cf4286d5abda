"""A verifier written from docs/receipts/README.md alone: Python and cryptography, nothing of ours."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

PAYLOAD_TYPE = "application/vnd.in-toto+json"
NOTHING_FOUND = "urn:sisa-ray:nothing-found:v1"

Keys = dict[str, dict[str, Ed25519PublicKey]]
"""By purpose, then by id."""


class NotGenuineError(Exception):
    """What does not hold."""


def require(holds: bool, what: str) -> None:
    """Raise ``NotGenuineError`` unless it holds."""
    if not holds:
        raise NotGenuineError(what)


def read_keys(text: str) -> Keys:
    """Return the keys in a text, by purpose and id."""
    found: Keys = {"receipts": {}, "checkpoints": {}}
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    pattern = r"purpose: (receipts|checkpoints)\nkey-id: ([0-9a-f]{64})\n(-----BEGIN.*?-----END PUBLIC KEY-----\n)"
    for purpose, key_id, pem in re.findall(pattern, text, re.DOTALL):
        key = load_pem_public_key(pem.encode())
        assert isinstance(key, Ed25519PublicKey)
        require(hashlib.sha256(raw(key)).hexdigest() == key_id, "key id")
        found[purpose][key_id] = key
    return found


def raw(key: Ed25519PublicKey) -> bytes:
    """Return the 32 bytes of a key."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def is_signed(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    """Return whether the key signed the message."""
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of an object, each of which stands once."""
    require(len(dict(pairs)) == len(pairs), "a member that stands twice")
    return dict(pairs)


def from_base64(text: str) -> bytes:
    """Return the bytes that have just this base64."""
    payload = base64.b64decode(text, validate=True)
    require(base64.b64encode(payload).decode() == text, "base64")
    return payload


def from_hex(text: str) -> bytes:
    """Return the bytes that have just this hexadecimal form."""
    payload = bytes.fromhex(text)
    require(payload.hex() == text, "hexadecimal")
    return payload


def leaf_of(envelope: dict[str, Any]) -> bytes:
    """Return the log's leaf."""
    return json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode()


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\0" + leaf).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node."""
    return hashlib.sha256(b"\1" + left + right).digest()


def signed_bytes(envelope: dict[str, Any]) -> bytes:
    """Return what an envelope's signature signs."""
    kind, payload = envelope["payloadType"].encode(), from_base64(envelope["payload"])
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def open_envelope(envelope: dict[str, Any], keys: Keys) -> tuple[dict[str, Any], str]:
    """Return the statement in an envelope, and the id of the key that signed it."""
    require(set(envelope) == {"payload", "payloadType", "signatures"}, "members of the envelope")
    require(envelope["payloadType"] == PAYLOAD_TYPE and len(envelope["signatures"]) == 1, "one signature")
    (signature,) = envelope["signatures"]
    require(set(signature) == {"keyid", "sig"} and signature["keyid"] in keys["receipts"], "signer")
    key = keys["receipts"][signature["keyid"]]
    require(is_signed(key, from_base64(signature["sig"]), signed_bytes(envelope)), "signature of the envelope")
    statement: dict[str, Any] = json.loads(from_base64(envelope["payload"]))
    require(statement["_type"] == "https://in-toto.io/Statement/v1", "type of the statement")
    (subject,) = statement["subject"]
    require(subject["name"] == "erasure-request", "name of the subject")
    require(subject["digest"]["sha256"] == statement["predicate"]["request"]["digest"], "digest of the request")
    return statement, signature["keyid"]


def key_hash(origin: str, key: Ed25519PublicKey) -> bytes:
    """Return the 4 bytes that name a key in a note."""
    return hashlib.sha256(origin.encode() + b"\n\x01" + raw(key)).digest()[:4]


def open_checkpoint(note: str, keys: Keys) -> tuple[str, int, bytes, str]:
    """Return the origin, size and root that a checkpoint states, and the id of the key that signed it."""
    found = re.fullmatch(r"(([^\n +]+)\n([0-9]+)\n([^\n]+)\n)\n\u2014 ([^\n ]+) ([^\n ]+)\n", note)
    require(found is not None, "form of the checkpoint")
    assert found is not None
    text, origin, size, root, name, signature = found.groups()
    require(origin == name, "name in the signature line")
    signed = from_base64(signature)
    for key_id, key in keys["checkpoints"].items():
        if signed[:4] == key_hash(origin, key) and is_signed(key, signed[4:], text.encode()):
            return origin, int(size), from_base64(root), key_id
    raise NotGenuineError("signature of the checkpoint")


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Require that the leaf's hash stands at the index under the root."""
    require(0 <= index < size, "index")
    h, i, last = leaf, index, size - 1
    for p in proof:
        require(last != 0, "length of the proof")
        if i % 2 or i == last:
            h = node(p, h)
            while i % 2 == 0 and i:
                i, last = i // 2, last // 2
        else:
            h = node(h, p)
        i, last = i // 2, last // 2
    require(last == 0 and h == root, "inclusion proof")


def check_consistency(old: tuple[int, bytes], new: tuple[int, bytes], proof: Sequence[bytes]) -> None:
    """Require that the new tree (size and root) begins with the old one."""
    (m, old_root), (n, new_root) = old, new
    require(m <= n, "sizes")
    if m in {0, n}:
        require(not proof and (m == 0 or old_root == new_root), "consistency proof")
        return
    hashes = [old_root, *proof] if m & (m - 1) == 0 else list(proof)
    require(bool(hashes), "length of the proof")
    i, last = m - 1, n - 1
    while i % 2:
        i, last = i // 2, last // 2
    a = b = hashes[0]
    for p in hashes[1:]:
        require(last != 0, "length of the proof")
        if i % 2 or i == last:
            a, b = node(p, a), node(p, b)
            while i % 2 == 0 and i:
                i, last = i // 2, last // 2
        else:
            b = node(b, p)
        i, last = i // 2, last // 2
    require(last == 0 and a == old_root and b == new_root, "consistency proof")


def check_receipt(text: str, keys: Keys) -> dict[str, Any]:
    """Return the statement of a genuine receipt. Raises ``NotGenuineError`` for any other."""
    try:
        return _checked(text, keys)
    except (KeyError, TypeError, ValueError) as error:  # it has another shape
        raise NotGenuineError("shape") from error


def _checked(text: str, keys: Keys) -> dict[str, Any]:
    found = json.loads(text, object_pairs_hook=unique)
    require(set(found) == {"format_version", "envelope", "log", "keys"} and found["format_version"] == 1, "members")
    statement, signer = open_envelope(found["envelope"], keys)
    _, size, root, checkpoint_signer = open_checkpoint(found["log"]["checkpoint"], keys)
    proof = [from_hex(each) for each in found["log"]["proof"]]
    check_inclusion(leaf_hash(leaf_of(found["envelope"])), found["log"]["index"], size, proof, root)
    require([list(read_keys(each)[kind]) for each, kind in zip(found["keys"], ("receipts", "checkpoints"), strict=True)]
            == [[signer], [checkpoint_signer]], "keys in the receipt")  # fmt: skip
    return statement


def commitment(salt: str, subjects: Sequence[str], ids: Sequence[str]) -> str:
    """Return the commitment to names."""
    require(re.fullmatch("[0-9a-f]+", salt) is not None, "salt")
    names = [("subject", name) for name in subjects] + [("id", name) for name in ids]
    leaves = [hashlib.sha256(f"{salt}{kind}\0{name}".encode()).digest() for kind, name in names]
    return hashlib.sha256(b"sisa/nothing-found/1" + b"".join(sorted(leaves))).hexdigest()


def commitment_in(statement: dict[str, Any]) -> str | None:
    """Return the commitment that a statement holds."""
    request = statement["predicate"]["request"]
    found = request["digest"] if statement["predicateType"] == NOTHING_FOUND else request.get("commitment")
    return found if isinstance(found, str) else None
