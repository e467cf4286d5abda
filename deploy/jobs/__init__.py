"""Jobs: programs for Ray Jobs, on a cluster whose coordinator does the work.

erase_job  submits an erasure request, and ends
"""
