"""Five sites whose data differ.

split    writes them
compare  compares the federation with each site alone
"""
