"""Examples that can be run: each folder tells one story, on real data.

sites/  five sites whose data differ
"""
