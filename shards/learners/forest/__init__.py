"""The keyed forest: decision trees out of which data points are taken exactly.

nodes     the nodes of all trees as arrays
rows      data points, and which of them each node has
choosing  which split nodes choose, many nodes at once
growing   how trees grow
changing  how they change when their data points do
learner   the learner: a forest as a constituent
"""
