"""Learners: turn a shard's data points into a constituent model, slice by slice.

protocol  the methods of a learner
registry  opens the learner that a specification names
trainer   drives a learner over slices and writes a checkpoint after each
torch/    networks
"""
