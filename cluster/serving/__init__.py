"""Serving: a federation's ensemble over HTTP, on Ray Serve.

May touch: fastapi and starlette (nobody else does), ray.serve, Jinja2 (in one module), the rooms to the left.
Must not know: the command line.
Promises: no answer leaves a replica that was not confirmed against the store after it was computed (E10); what cannot
be confirmed is answered with 503.

    app                the API of one federation; no Ray
    service            one replica's objects, put together
    deployment         the replicas, on Ray Serve
    sites_app          the API of a federation of several sites
    sites_service      the objects behind it
    sites_deployment   its replicas, on Ray Serve
    endpoints          what all servers here have in common
    intake             limits on concurrent requests, and receiving bodies
    erasures           erasure requests that arrive over HTTP
    batcher            evaluates and confirms many callers' points together
    bodies             predictions read and written as JSON or Arrow
    schemas            the bodies' shapes, for the OpenAPI document
    auth               tokens, roles and rate limits
    http_errors        statuses and the body of every error
    access_log         a request's id, and one line in the log
    description/       that document with examples, and the page that shows it
    console/           pages for people
"""
