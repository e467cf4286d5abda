"""Registers: shared state that several writers advance by conditional puts, one number at a time.

numbered      numbered objects, the common base of manifests, tokens and journal entries
manifest      numbered statements of what is current
journal       numbered batches of records that became durable together
group_commit  many threads share one durable write
record        one small object that several writers change
create_once   creates an object once, or reads the one that another writer created
"""
