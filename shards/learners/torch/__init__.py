"""Networks: constituents that are torch modules, trained by gradient steps.

learner     initial state, steps, predictions
factory     the user's model: imported, built, checked, named by its code
checkpoint  all of a learner's state as safetensors
seeding     the one door to random number generators, and to torch's numerics switches
"""
