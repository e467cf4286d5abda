"""Registers: what several writers advance by conditional puts, one number at a time.

numbered      numbered objects: what manifests, tokens and journal entries have in common
manifest      numbered statements of what is current
journal       numbered batches of records that became durable together
group_commit  many threads share one durable write
record        one small object that several writers change
create_once   an object created once, or read where another created it
"""
