"""Linear models with certified removal (Guo et al., ICML 2020): an erasure is a Newton step whose error is bounded.

optimum  the objective, its optimum, and the step that removes data points
learner  a constituent: coefficients, noise, and what of the budget is used
"""
