"""A real Ray cluster of several nodes on this machine: nodes, coordinators and the head are lost in mid-erasure.

These tests start a cluster of their own, so they run in a process of their own: ``pytest -m multinode``.
"""
