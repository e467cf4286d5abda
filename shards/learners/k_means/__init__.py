"""K-means out of which points are taken directly.

nearest   the nearest centroid of each point, by whole numbers
pivots    k-means of few weighted points: the start of a shard's clusters, and one set of clusters for all shards
learner   the learner
"""
