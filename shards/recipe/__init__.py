"""What the table [training] may say.

optimizers     the optimizers there are, and their arguments
engines        how the steps are carried out
kernels        which kernels take the optimizer's step
learning_rate  how the learning rate changes over the whole training
"""
