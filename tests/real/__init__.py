"""Real data sets, from the file as it is to a model that is as good as a plain PyTorch loop's.

archives          the files, out of packages of pinned versions and digests
cases             what a user does with each file
plain             the same ensemble as a plain loop, with a preparation of its own
measuring         both on one data set, with an erasure and its proof
__main__          prints the table of docs/benchmarks.md
"""
