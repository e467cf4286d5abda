"""The learners that ``[model] learner`` may name.

kinds       the targets of each learner, and its arguments
guarantees  the promises about erased data points
approximate  the learners of the laboratory, which a federation refuses
admissible  the features and labels that they take
bayesian    the arguments of Bayesian linear regression and the conjugate families
bounds      the bounds of arguments
boosting    the arguments of boosted trees
certified   the arguments of the certified linear model
forest      the arguments of forests
k_means     the arguments of k-means
leaving     the part of a constituent that may leave a site
scikit      the arguments of scikit-learn's estimators
summation   the arguments of naive Bayes, ridge and item-to-item counts
"""
