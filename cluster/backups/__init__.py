"""Backups of a federation: making them while it is at work, restoring them, and moving a store to another place.

contents  which objects a backup holds, which go to the place of the keys, and which are left out
backup    makes a backup
move      moves a store to another place
restore   restores a backup, or a copy that another tool made
recovery  makes a restored store a federation that may answer
"""
