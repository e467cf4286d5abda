"""Runtime: Ray itself, and what every process on it needs.

session    Ray's start and end
contact    checks that a cluster answers and accepts this process's token
head       a Ray head on this machine that outlives its starter
metadata   what Ray keeps about programs that joined it
nodes      nodes, their processors and labels
labels     pins work to nodes with the federation's labels
task_pool  runs many tasks, as many at a time as fit
learners   the learner that a specification asks for
user_code  makes the user's modules importable on workers
guard      refuses a foreign package with the name of one of our rooms
system     clock, host, processors, threads
process    how a process ends, and messages during long waits
"""
