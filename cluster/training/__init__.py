"""Training: a federation's shards on Ray's workers.

workers  the workers of a federation, started when they are needed
pool     hands shards to workers, survives lost ones
alike    which workers are used: such as compute alike
deaths   what becomes of workers, and when a task is given up
worker   one worker's process
ingest   reads the source by many tasks
"""
