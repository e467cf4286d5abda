"""Coordinator actor: a federation's writer that stays.

actor        the Ray actor: decodes, calls, encodes
resident     what it does, without Ray
launch       starts, finds and stops it
ownership    which store it writes, and how others make sure of it
record       where it was launched, as the store says it
observer     tells metrics and log lines of what happens
metrics      what is counted and measured, here and by replicas of the API
store_size   counts what a store holds, a piece at a time
ray_metrics  those figures through Ray's metrics agent
log_lines    one JSON line an event
"""
