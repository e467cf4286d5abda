"""Backups: copies of a store's objects that can be verified, regardless of which tool copied them.

repository  the place that keeps backups: blobs named by their digest, and an index for each backup
cut         a consistent copy of a store that is written to meanwhile
sources     stores and folders that other tools have copied, read without the metadata of S3 objects
"""
