"""Decisions: pure functions from state and event to the next state and what is left to do.

decide     events, effects, and the state after an event
chains     how chains of checkpoints shorten and grow
lifecycle  what may happen to a request beside being carried out
policy     whether people may ask for that
times      the newest time on record, behind which no later one falls
plan       retrain plans: which slices, at what cost
history    which generations were served, and when
ended      requests that are over leave the state
batching   when retraining may start
forecast   expected cost of a partition, of requests
"""
