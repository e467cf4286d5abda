"""The learners that ``[model] learner`` may name.

kinds       what each can predict, and its arguments
guarantees  what each promises about erased data points
approximate  the learners of the laboratory, which a federation refuses
admissible  what features and labels they take
bayesian    the arguments of Bayesian linear regression and the conjugate families
bounds      the bounds of arguments
boosting    the arguments of boosted trees
certified   the arguments of the certified linear model
forest      the arguments of forests
k_means     the arguments of k-means
leaving     what may leave a site of a constituent
scikit      the arguments of scikit-learn's estimators
summation   the arguments of naive Bayes, ridge and item-to-item counts
"""
