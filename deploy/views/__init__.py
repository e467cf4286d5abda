"""Views: what commands print, for people and as JSON.

output     the envelope, exit codes, streams
text       tables and sentences
progress   progress on a terminal
erasure    erasure requests
receipts   receipts and the log
diagnosis  what ``doctor`` found
verifying  what ``verify`` found
watching   ``status --watch``
sites      federations of several sites
remote     commands sent to an HTTP API
"""
