"""Engine: performs what decisions ask for, and makes every event durable first.

engine          the one that writes
ledger          journal and manifests as one current state
codec           states and events as stored records
state_encoder   successive states, of which only what changed is encoded again
earlier_formats requests as earlier releases stored them
follower        the state for those who only read
history         generations that are no longer in the state
ended           requests that are no longer in the state, by id
intake          reads the sources, and hold-out points from them or from a source of their own
removal         takes a request's points out of slices
corrections     puts corrected values into slices, and keeps sources from bringing the old ones back
sweep           deletes what the state does not name
evidence        what a receipt states, gathered from the store
tasks           training tasks for workers
lookup          objects that the state refers to, checked against their digests
"""
