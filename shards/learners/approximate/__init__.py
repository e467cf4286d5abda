"""Learners that only approximate an erasure, for the laboratory alone: a federation refuses them.

protocol     what an experiment asks of them
models       softmax regression and a network of one hidden layer, in float64
descent      gradient descent with holes where data points left, and the full retrain
deltagrad    the descent again, with mostly estimated gradients
ascent       gradient ascent on the loss of those who leave
sekhari      logistic regression that forgets without the data points that are left
guo          certified removal over a single shard
fisher       noise where answers need a parameter least, and what it leaves, in nats
gaussian     Gaussian posteriors of linear predictors, and the bounds whose optimum they are
variational  variational Bayes unlearning of logistic regression
"""
