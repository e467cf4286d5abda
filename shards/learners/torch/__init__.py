"""Networks: constituents that are torch modules, trained by gradient steps.

learner       initial state, steps, predictions
factory       the user's model: imported, built, checked
model_code    the user's source files, and the digest over them
code_manifest all that a model is made of, as its rehearsal found it
staging       a private copy of code and declared files
confinement   what a model may read while it is built and trained
user_modules  the user's modules in a process that learns: read once, run afresh for each constituent
rehearsal     a model is tried in two fresh processes before it learns from anybody
performance   one half of a rehearsal
attributes    what a model keeps in plain attributes, where no checkpoint sees it
checkpoint    all of a learner's state as safetensors
seeding       the one door to random number generators, and to torch's numerics switches
probe         a digest of fixed arithmetic, by which two processes may be told apart
"""
