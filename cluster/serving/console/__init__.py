"""The console: pages for people, in a browser, over the same objects as the API.

May touch: Jinja2 (in ``pages`` alone), the rest of ``cluster.serving``.
Must not know: Ray, the command line.
Promises: a page shows a token's holder no more than the API does; names of people are in the bodies of requests and of
the answers to them, never in an address, a title, a log, a cookie or a cache; no page loads anything from elsewhere.

    console           the pages of each kind of server, and their routes
    pages             what all pages share: who is signed in, forms, templates
    sign_in           the cookie that keeps somebody signed in
    entrance          signing in and out, and the files that pages load
    wording           how moments, numbers and sizes are shown
    request_pages     Requests: the list, one request, and changes to it
    federation_page   Federation
    trial_page        Try it
    evidence_page     Evidence
    sites_pages       Requests and Federation, of several sites
    grid              the grid of shards and slices
    streams           live pages
    people_pages      look-ups, requests, readmissions and traces, by people's names
    letter_pages      one request's receipt, and the letter about it
    listing           the list of all requests, a page at a time
    answers           whether a request's data are gone, in an officer's words
"""
