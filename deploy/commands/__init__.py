"""Commands: the options of every command of ``sisa``.

cli      the command itself: train, predict, erase, status, verify, ...
shared   options and checks that commands share
request  ``sisa request ...``
rectify  ``sisa rectify``
report   ``sisa report``, ``sisa trace``
inspect  ``sisa doctor``, ``sisa plan``
launch   ``sisa launch``, ``sisa stop``, ``sisa adopt``
experiment  ``sisa experiment``
backups  ``sisa backup``, ``sisa restore``, ``sisa move``
serve    ``sisa serve``, ``sisa token``
site     commands for one site of several
keys     ``sisa keys``
own_words  removes the arguments from the process's command line
check    ``sisa-check``, which needs cryptography alone
"""
