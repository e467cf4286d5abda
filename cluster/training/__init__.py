"""Training: a federation's shards on Ray's workers.

late_workers  the workers of a federation, whose modules are loaded when they are needed
workers       the workers of a federation, started when they are needed
near          takes a few data points out directly, without a worker
pool          gives shards to workers, and replaces lost ones
selection     the workers to use: those that compute the same bits
deaths        why workers fail, and when a task is given up
silence       messages about workers that do not report
actor         the Ray actor around a worker, and what a worker needs to know
worker        the core of a worker, with its learner
own_process   this process as the only worker, for measurements and federations that are thrown away
ingest        reads the source with many tasks
"""
