"""The experiment ``table-i``: the survey's table of methods, with what each costs, keeps and leaves behind.

grid       settings, cells and rows
methods    the methods, one entry each
federated  methods that are learners of a federation
alone      methods of the laboratory, over all data points at once
trial      the data of a round, and what is measured of a method on them
report     what the rows say
"""
