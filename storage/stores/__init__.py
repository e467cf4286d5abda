"""Stores: places for objects other than a bucket.

local       objects in a folder
file_errors translates errors of the file system for the caller
durability  the synced file-system steps that ``local`` consists of
folder_memory what a process remembers of folders, so that unchanged ones are not read again
lock        locks of the operating system on files
memory      objects in this process, for tests and simulations
probe       checks at start whether a store keeps its promises
"""
