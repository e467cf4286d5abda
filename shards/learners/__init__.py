"""Learners: what turns a shard's data points into a constituent model, slice by slice.

protocol  what every learner offers
registry  opens the learner that a specification names
trainer   drives a learner over slices, with a checkpoint after each
torch/    networks
"""
