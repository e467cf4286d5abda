"""Coordinator actor: a federation's writer that stays.

actor        the Ray actor: decodes, calls, encodes
resident     what it does, without Ray
launch       starts, finds and stops it
ownership    which store it writes, and how others make sure of it
record       where it was launched, recorded in the store
observer     passes events to metrics and log lines
metrics      what is counted and measured, here and by replicas of the API
store_size   counts a store's objects, a piece at a time
ray_metrics  exports the metrics through Ray's agent
log_lines    one JSON line per event
"""
