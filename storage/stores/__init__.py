"""Stores: where objects lie when they are not in a bucket.

local       objects in a folder
file_errors what an error of the file system means to the caller
durability  the synced file-system steps that ``local`` is made of
lock        locks of the operating system on files
memory      objects in this process, for tests and simulations
probe       finds out at start whether a store keeps its promises
"""
