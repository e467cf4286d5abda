"""Coordinator actor: a federation's writer that keeps running after the command that launched it.

actor        the Ray actor: decodes, calls, encodes
resident     the coordinator itself, without Ray
launch       starts, finds and stops the actor
ownership    which store it writes, and how other processes verify that
record       where it was launched, recorded in the store
observer     passes events to metrics and log lines
metrics      the metrics of the coordinator and of the API's replicas
store_size   counts a store's objects, a piece at a time
ray_metrics  exports the metrics through Ray's agent
log_lines    one JSON line per event
"""
