"""Deploy: what people and machines touch.

Knows the command line, its output and exit codes, progress on a terminal, demo data, first drafts of specifications.
May touch: all other rooms; it alone uses typer and rich.
Must not know: how models are trained, objects stored, or decisions made.
Owns the words: command, envelope, exit code.

    commands/   the options of every command
    views/      what commands print
    demo        sisa demo
    laboratory  what sisa experiment prints
    demo_data   the data it uses
    initialise  sisa init
    guesses     the role of each column
    encoders    encoders drafted for columns that are not plain numbers
    name_file   a file of names to erase
    plots       the only user of matplotlib
    settings    the only reader of environment variables
    jobs/       programs for Ray Jobs
    examples/   stories to run
"""
