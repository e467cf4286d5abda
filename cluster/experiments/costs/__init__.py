"""What erasures cost (experiment ``sisa-costs``): measured beside the closed form of SISA's authors.

grid    settings, cells, and how one cell is computed
report  what the rows say
"""
