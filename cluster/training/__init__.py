"""Training: a federation's shards on Ray's workers.

late_workers  the workers of a federation, loaded when they are needed
workers       the same, started when they are needed
pool          hands shards to workers, survives lost ones
selection     the workers to use: those that compute the same bits
deaths        why workers fail, and when a task is given up
silence       what is said of workers that say nothing
worker        one worker's process
ingest        reads the source by many tasks
"""
