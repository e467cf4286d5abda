"""Learners: turn a shard's data points into a constituent model, slice by slice.

protocol     the methods of a learner
registry     opens the learner that a specification names
measuring    measures an ensemble on hold-out points
trainer      drives a learner over slices and writes a checkpoint after each
tensors      constituents that are NumPy arrays: digest and checkpoint
blas         learners that compute with floating-point linear algebra: threads, profile, probe
fixed_point  values on a grid, and sums of them that are exact in any order
torch/       networks
k_means/     clusters from which points are removed directly
boosting/    boosted trees of LightGBM
certified/   linear models whose erasures are certified
approximate/  learners that only approximate an erasure, for experiments
forest/      decision trees from which points are removed directly
scikit/      estimators of scikit-learn
summation/   naive Bayes and ridge: sums over points
"""
