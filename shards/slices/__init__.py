"""Slices: the data points of a federation as it stores them.

files            slice files: written, read, rewritten without erased points
differences      points that left slices, and points that came
corrections      other values for data points, and digests of the old ones
ingest           from a source to slice files, with bounded memory
admitted         refuses values that the federation's learner does not take
parallel_ingest  the same with many processes, fragment by fragment
held_out         hold-out points, read to measure an ensemble
survey           finds everything in a source that an ingest would refuse, in one run
overlap          which data points of an evaluation were trained on
contents         digests of data points' contents, from which a slice's record follows
kept_digests     digests kept from when a part is written, so that no part is read again
duplicate_ids    finds an id that occurs in two fragments
"""
