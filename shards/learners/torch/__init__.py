"""Networks: constituents that are torch modules, trained by gradient steps.

learner            initial state, steps, predictions
engines/           how steps are carried out: one after another, or recorded and repeated
recipe             optimizer, loss, augmentation and the user's own step
factory            the user's model: built and checked
model_code         the user's source files: imported, and the digest over them
code_manifest      everything a model is made of, as its rehearsal found it
staging            a private copy of code and declared files
confinement        what a model may read while it is built and trained
user_modules       the user's modules in a training process: read once, executed again for each constituent
rehearsal          tries a model in two fresh processes before it sees real data points
rehearsal_process  one of the two processes of a rehearsal
attributes         tensors and numbers in plain attributes, which no checkpoint holds
stacked            small constituents, asked together
copies             models filled with trained weights as these come in, without initial ones
checkpoint         all of a learner's state as safetensors
seeding            the only module that touches random generators and torch's numerics switches
probe              a digest of fixed arithmetic, which can show that two processes compute differently
"""
