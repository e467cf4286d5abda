"""Estimators of scikit-learn that go on from what they have learned.

learner    an epoch is one call of ``partial_fit``
attributes what an estimator has learned, as arrays and JSON
"""
