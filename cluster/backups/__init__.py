"""Backups of a federation: made while it is at work, restored, and stores moved to another place.

contents  what belongs into a backup, what goes to the place of the keys, and what into none
backup    makes one
move      takes a store to another place
restore   puts one back, or what another tool has copied
recovery  makes what was put back a federation that may answer
"""
