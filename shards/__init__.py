"""Shards: data points and the constituent models that learn them.

Knows data points, subjects, shards, slices, the slice schedule, lineages, learners, checkpoints, cost.
May touch: the object store it is given (storage), pyarrow only in dataset.py and sources.py, torch only in
models.py, model.py, trainer.py, checkpoint.py and seeding.py.
Must not know: erasure requests, Ray, HTTP, the command line.
Owns the words: data point, subject, shard, slice, constituent model, checkpoint, lineage, tombstone.
Numbering: shards are 0 .. S-1, slices 1 .. R (as in the paper); "after slice 0" is the initial state.
Sources: Bourtoule et al., Machine Unlearning, IEEE S&P 2021 (SISA), sections IV and V.
"""
