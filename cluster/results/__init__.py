"""Results: values that the front door returns.

federation  results of one federation
traces      where a subject's data are
sites       results of a federation of several sites
"""
