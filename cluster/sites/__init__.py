"""Federated sites: several federations that answer together, each with its own data, store, keys and receipts.

Nothing in here reads a data point of a site but at that site. ``specification`` reads ``[[site]]`` tables, ``desk`` is
what answers at a site, ``links`` are the ways to reach one, ``asking`` asks several at once, ``roster`` remembers who
takes part, ``federation`` is the front door.
"""
