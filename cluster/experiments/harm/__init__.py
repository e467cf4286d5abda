"""Harm by erasures (experiment ``harm``): accuracy per class and per declared group, before and after.

grid    settings, cells, and how one cell is computed
groups  declared groups of pictures: how far the writing leans
learners  learners of all data points at once
report  what the rows say
"""
