"""Encryption: every object under a key of its own, which an erasure destroys.

store             the object store that encrypts on writing and decrypts on reading
keyring           the data keys of objects, wrapped; one small object for each ring
keyring_location  where keyrings are: in the store of the objects, or in another one
cipher            AES-GCM and key wrapping, by ``cryptography``
"""
