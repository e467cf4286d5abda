"""The laboratory: experiments on real data, each a grid of cells that Ray tasks compute.

catalog      the experiments, by name
experiment   what an experiment is: settings, cells, rows, figures, a report
runner       computes the cells that a folder lacks
results      the folder: settings, rows of each cell, results as JSON, CSV and Markdown
datasets     the data sets, each checked by its digest
federation   a whole federation in one process, for measurements
measured     processor time, accuracies, distances
membership   membership inference with one threshold, and what it finds at random
costs/       the experiment sisa-costs: what erasures cost, measured beside the closed form
harm/        the experiment harm: whose accuracy erasures lower, per class and per declared group
section_vi/  the experiment section-vi: the survey's own, on real data
table_i/     the experiment table-i: every method of the survey on the same data
"""
