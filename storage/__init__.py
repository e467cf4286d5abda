"""Storage: bytes that survive.

Knows object keys, conditional puts, digests, encryption, manifest versions, journal entries, fencing tokens, writer
locks, signatures.
May touch: the object store it is given, the file system behind a local store, boto3 (only in s3/client.py), ciphers
and signatures (only in encryption/cipher.py and transparency/keys.py).
Must not know: shards, slices, models, Ray, HTTP.
Promises: a returned put is durable; a raised OutcomeUnknown may have landed.
Owns the words: object, key, conditional put, manifest, journal, entry, position, floor, fencing token, digest,
outcome unknown, data key, key-encryption key, ring.
Sources: S3 conditional requests (If-None-Match, If-Match); RFC 8785 for canonical JSON;
SlateDB's boundary object for the floor under deleted numbers.

    objects        the object store: what every store offers and promises
    contents       all that a store holds, listed together
    location       from a location as a person writes it to the store there
    stores/        a folder, memory, and the probe of a store's promises
    s3/            a bucket
    encryption/    objects under keys that can be destroyed
    registers/     manifests, journal, and what they are made of
    transparency/  the receipts' log, its signatures, its keys
    backups/       consistent copies that prove themselves
    records        canonical JSON with a version and its own digest
    each           one function applied to many items, in turn or concurrently
    digests        digests, and the bytes they are taken over
    encodings      bytes as text
    private_folder temporary folders for this user alone, removed even after a kill
    errors         errors, by what the caller does next
    release        which release of this system a process runs
"""
