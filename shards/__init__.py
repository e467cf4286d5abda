"""Shards: data points and the constituent models that learn them.

Knows data points, subjects, shards, slices, the slice schedule, lineages, learners, checkpoints, cost.
May touch: the object store it is given (storage); pyarrow only in data/ and slices/files.py; torch only in models.py
and learners/torch/.
Must not know: erasure requests, Ray, HTTP, the command line.
Owns the words: data point, subject, shard, slice, constituent model, checkpoint, lineage, tombstone.
Numbering: shards are 0 .. S-1, slices 1 .. R (as in the paper); "after slice 0" is the initial state.
Sources: Bourtoule et al., Machine Unlearning, IEEE S&P 2021 (SISA), sections IV and V.

    specification  the settings that decide a constituent's bytes
    csv_form       the form of CSV files
    encoders       how a column becomes features, as it is declared
    encoding       the table [data.encode]: read, checked, looked up by column
    points         data points in memory, as arrays
    targets        what is predicted: a class, numbers, several labels
    measures       how good answers are
    subjects       names of people: forms and skeletons of names
    routing        keyed digests of names; which slice of which shard
    ordering       order and random streams that do not depend on a point's position
    schedule       how many epochs each slice gets
    cost           what training and erasing cost, in formulas
    lineage        what a checkpoint was trained on
    tombstones     keyed digests of erased subjects and data points
    models         the networks that come with the system
    data/          from files and tables to arrays
    learner_kinds/ the available learners, and their arguments
    recipe/        the values of [training]: optimizers, learning rates
    slices/        from arrays to slice files
    learners/      from slices to checkpoints
"""
