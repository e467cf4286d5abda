"""Slices: the data points of a federation as it stores them.

files            slice files: written, read, rewritten without erased points
ingest           from a source to slice files, with bounded memory
parallel_ingest  the same by many processes, fragment by fragment
survey           everything in a source that an ingest would refuse, at once
duplicate_ids    finds an id that occurs twice across fragments
"""
