"""Coordinator: decisions.

Knows erasure requests, retrain plans, what is current, what may be served, aggregation, receipts, cost forecasts.
May touch: only values, except engine/, receipts/issuer.py and verification.py, which use the store, the worker pool and
the clock that are passed to them.
Must not know: torch, Ray, boto3, HTTP, the command line.
Owns the words: erasure request, retrain plan, generation, erasure floor, quarantine, aggregation, receipt.
Sources: SISA sections III-V; tinker-cookbook and Ray Train v2 for decide(state, event) -> (state, effects).

    requests      erasure requests and their states
    effects       measures on hold-out points, before and after erasures
    delays        what delays a request or moves its due date
    interventions how an operator may change a request that is under way
    state         what a federation is at one moment
    settings      the specification's tables [aggregation], [erasure] and [receipts]
    ports         what the engine needs from outside: workers, clock, names, listeners
    aggregation   combines constituents' answers
    sites         what is known about the sites of a federation
    status        the state of a federation in the form that people and scripts read
    verification  retrains and compares; looks for residue
    decisions/    pure: the next state, plans, whether an intervention is allowed
    engine/       carries the decisions out, and makes every event durable
    receipts/     states, signs and checks what was erased
"""
