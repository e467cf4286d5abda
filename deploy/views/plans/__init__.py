"""Plans: what is recommended before a federation is begun.

optimisation  how many shards and slices to take
"""
