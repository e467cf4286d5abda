"""Views: what commands print, for people and as JSON.

output     the envelope, exit codes, streams
text       sentences
tables     tables of text
evaluation  how good answers are
progress   progress on a terminal
erasure    erasure requests
rectification  corrections
receipts   receipts and the log
handed_over  files from others: receipts, keys, checkpoints
plans/     what is recommended before a federation is begun
growth     whether a log continues an earlier one
new_keys   whether new keys are signed by older ones
diagnosis  what ``doctor`` found
verifying  what ``verify`` found
watching   ``status --watch``
sites      federations of several sites
remote     commands sent to an HTTP API
people/    letters, and traces of people
"""
