"""Writer: what the one process that holds a federation's writer lock does.

writer         opens a federation for writing; trains, erases, verifies
identity       which federation a store holds; its partition key
drafting       turns names into keyed digests and a request
corrections    drafts correction requests: rows of a file as encrypted drafts
place          the federation's id, and where its store was when last written
last_verification  what the last verification found
notices        requests that the witness keeps, to be repeated after a restore
keys_owner     which store owns keys that are kept in another place
stores         the stores that a specification names
one_process    a new federation that is trained and erased from in this process alone
forecast       what training and erasures will cost
pace           what work costs on this machine, measured with small federations that are thrown away
throw_away     federations that are trained to be measured, and deleted
optimising     which numbers of shards and slices to take
trial          what a learner that learns a shard at once costs, tried
training_data  the source, and data to predict
"""
