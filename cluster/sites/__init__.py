"""Federated sites: several federations that answer together, each with its own data, store, keys and receipts.

A site's data points are read at that site alone.

    federation        the front door of a federation of several sites
    link              how the federation reaches a site
    site_server       answers questions at a site
    pinned            sites on one Ray cluster, each on its own nodes
    remote            a site with its own cluster, over HTTP
    simulation        all sites on one machine
    fan_out           asks several sites at once
    batch_predict     predictions for whole files by several sites
    imported_weights  constituents that have left their site
    membership        which sites take part, and the latest state seen of each
"""
