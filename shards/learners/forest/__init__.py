"""The keyed forest: decision trees out of which data points are taken exactly.

growing   one tree: how it grows, and how it changes when its data points do
trees     a tree's nodes as arrays
learner   the learner: a forest as a constituent
"""
