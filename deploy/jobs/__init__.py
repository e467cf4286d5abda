"""Programs for Ray Jobs, on a cluster whose coordinator does the work."""
