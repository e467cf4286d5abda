"""Config: ``sisa.toml`` as frozen values.

specification  a federation's file, its settings and what identifies it
sites          the file of a federation of several sites
serve          the table ``[serve]``
file           whether the specification's file exists
toml           tables read with every problem named by its line
"""
