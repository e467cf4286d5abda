"""Storage: bytes that survive.

Knows object keys, conditional puts, digests, manifest versions, fencing tokens, writer locks.
May touch: the object store it is given, the file system behind a local store.
Must not know: shards, slices, models, Ray, HTTP.
Promises: a returned put is durable; a raised OutcomeUnknown may have landed.
Owns the words: object, key, conditional put, manifest, fencing token, digest, outcome unknown.
Sources: S3 conditional requests (If-None-Match, If-Match); RFC 8785 for canonical JSON;
SlateDB's boundary object for the floor under deleted manifest numbers.
"""
