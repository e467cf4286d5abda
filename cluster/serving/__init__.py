"""Serving: a federation's ensemble over HTTP, on Ray Serve.

Knows replicas, generations in memory, the endpoints and their bodies, tokens' roles, limits.
May touch: fastapi and starlette (nobody else does), ray.serve, the rooms to the left.
Must not know: the command line.
Promises: no answer leaves a replica that was not confirmed against the store after it was computed (E10); what cannot
be confirmed is answered with 503.
"""
