"""The learners that ``[model] learner`` may name.

kinds      what each can predict, and its arguments
forest     the arguments of forests
summation  the arguments of naive Bayes and ridge
"""
