"""Coordinator: decisions.

Knows erasure requests, retrain plans, what is current, what may be served, aggregation, cost forecasts.
May touch: nothing but values in requests.py, state.py, decide.py, plan.py, aggregation.py, forecast.py; engine.py and
verification.py act on the store and the worker pool they are given.
Must not know: torch, Ray, boto3, HTTP, the command line.
Owns the words: erasure request, retrain plan, generation, erasure floor, quarantine, aggregation.
Sources: SISA sections III-V; tinker-cookbook and Ray Train v2 for decide(state, event) -> (state, effects).
"""
