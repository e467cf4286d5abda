"""Encryption: every object under a key of its own, which an erasure destroys.

store             the object store that encrypts what it writes and decrypts what it reads
keyring           the data keys of objects, wrapped in one small object a ring
keyring_location  where keyrings lie: beside the objects, or in another store
cipher            AES-GCM and key wrapping; a door to ``cryptography``
"""
