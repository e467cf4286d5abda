"""Engines: how the steps of training are carried out. They change no bits, only the time that a step takes.

recording  one step, recorded as calls of operators
program    the recorded calls, bound to memory that stays, and repeated
flat       parameters, gradients and optimizer state in one stretch of memory, and the optimizer's step on it
steps      one step of an optimizer, without torch's compiler
fused      the step of an optimizer in one kernel, and the memory that it can take
kept       the recording that further slices and constituents are trained with
replay     the engine that repeats a recorded step, and the trial that it has to pass before
"""
