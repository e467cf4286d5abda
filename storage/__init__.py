"""Storage: bytes that survive.

Knows object keys, conditional puts, digests, encryption, manifest versions, journal entries, fencing tokens, writer
locks.
May touch: the object store it is given, the file system behind a local store, ciphers (only in cipher.py).
Must not know: shards, slices, models, Ray, HTTP.
Promises: a returned put is durable; a raised OutcomeUnknown may have landed.
Owns the words: object, key, conditional put, manifest, journal, entry, position, floor, fencing token, digest,
outcome unknown, data key, key-encryption key, ring.
Sources: S3 conditional requests (If-None-Match, If-Match); RFC 8785 for canonical JSON;
SlateDB's boundary object for the floor under deleted numbers.
"""
