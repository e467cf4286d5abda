"""Deploy: what people and machines touch.

Knows the command line, its output and exit codes, progress on a terminal, demo data, first drafts of specifications.
May touch: everything to the left; typer and rich, which nobody else does.
Must not know: how anything is trained, stored or decided.
Owns the words: command, envelope, exit code.
"""
