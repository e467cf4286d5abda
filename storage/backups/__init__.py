"""Backups: copies of a store's objects that prove themselves, whichever tool has carried them.

repository  the place that keeps backups: blobs named by their digest, and an index for each backup
cut         a consistent copy of a store that is written to meanwhile
sources     stores and folders that other tools have copied, read without what S3 keeps beside an object
"""
