"""Results: what the front door returns.

federation  of one federation
sites       of a federation of several sites
"""
