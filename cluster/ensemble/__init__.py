"""Ensemble: constituents in memory that answer together.

loaded         a generation, loaded and aggregated
reader         reads what is current, and answers in this process
replica_state  what a replica serves and confirms against the store
tracing        where a subject's data are, and which generations may have answered with them
site_report    a site's reports about itself
"""
