"""Results: what the front door returns.

federation  of one federation
traces      of a look at where a subject's data are
sites       of a federation of several sites
"""
