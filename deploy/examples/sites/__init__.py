"""Five sites whose data differ.

split    writes them
compare  tells what the federation makes of them
"""
