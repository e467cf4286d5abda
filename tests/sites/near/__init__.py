"""Federations of several sites: answers that are combined, sites that are away, set back or withdrawn."""
