"""Runtime: Ray itself, and what every process on it needs.

session    Ray's start and end
contact    whether a cluster is there, and takes this process's token
head       the machine's lasting head
metadata   what Ray keeps of programs that joined it
nodes      nodes, their processors and labels
labels     pins work to nodes with the federation's labels
task_pool  runs many tasks, as many at a time as fit
user_code  makes the user's modules importable on workers
guard      refuses a foreign package under one of our names
system     clock, host, processors, threads
process    how a process ends, and a word about what takes long
"""
