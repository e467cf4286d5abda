"""Transparency: the receipts' log, and the keys and signatures that make it trustworthy.

log           the append-only log: entries under a Merkle tree, signed checkpoints
layout        where a log's objects lie, and how each is read
packs         256 entries in one object, once nothing about them changes any more
checkpoint    a signed checkpoint as text (C2SP tlog-checkpoint)
merkle        hashes and proofs of RFC 9162
check         recomputes a whole log and verifies every signature
witness       another store that keeps checkpoints, so that a rewritten log shows
envelope      DSSE envelopes: a payload, its type and one signature
keys          Ed25519 signing keys; the door to ``cryptography``
key_rotation  replaces the signing keys of all purposes together
"""
