"""Learners whose constituent is a few sums over its data points (Cao & Yang 2015): a point is subtracted again.

learner          the common base of these learners
naive_bayes      naive Bayes: gaussian, bernoulli, multinomial, categorical
ridge            ridge regression, and classification by regression on the classes
bayesian_linear  linear regression with intervals
cells            counts by cell, without cells of zeros
conjugate        rates and probabilities by group, with intervals
cooccurrence     which items are in a basket together, and what is recommended
quantiles        the ends of intervals, by SciPy
"""
