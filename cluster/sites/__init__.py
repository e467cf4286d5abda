"""Federated sites: several federations that answer together, each with its own data, store, keys and receipts.

A site's data points are read at that site alone.

    federation        the front door of a federation of several sites
    link              the ways to a site, as the federation knows it
    site_server       what answers at a site
    pinned            sites on one Ray cluster, each on nodes of its own
    remote            a site with a cluster of its own, over HTTP
    simulation        all sites on one machine
    fan_out           asks several sites at once
    batch_predict     whole files, answered by sites
    imported_weights  constituents that have left their site
    membership        which sites take part, and how far each has come
"""
