"""The values of the table [training].

optimizers     the available optimizers, and their arguments
engines        how the steps are carried out
kernels        which kernels take the optimizer's step
learning_rate  how the learning rate changes over the whole training
"""
