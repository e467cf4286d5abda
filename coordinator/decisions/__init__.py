"""Decisions: pure functions from state and event to the next state and the remaining work.

decide      the state after an event, and the remaining work
events      what has happened, and what remains to be done
chains      how chains of checkpoints shorten and grow
lifecycle   interventions in a request: pause, release, more time, withdrawal
corrections what is kept of corrected values
policy      whether an intervention is allowed
times       the newest recorded time, a lower bound of all later ones
plan        retrain plans: which slices, at what cost
history     which generations were served, and when
ended       how ended requests leave the state
batching    when retraining may start
forecast    expected cost of a partition, of requests
pace        what amounts of work cost, fitted to measurements
optimise    which numbers of shards and slices are cheapest
"""
