"""Federations of several sites: near, as folders and servers of this machine; on one cluster, a labelled node each."""
