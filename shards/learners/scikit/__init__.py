"""Estimators of scikit-learn that learn incrementally.

learner    an epoch is one call of ``partial_fit``
attributes the learned state of an estimator, as arrays and JSON
"""
