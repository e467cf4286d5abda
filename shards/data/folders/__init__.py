"""Folders that are more than their data files: which of the files count, and what they stand for.

table_formats   files of Delta, Iceberg and Hudi tables, which are refused
delta           Delta tables as of a version, by the package deltalake
saved_datasets  folders of datasets.save_to_disk, whose list of files says which are current
image_files     image files that tables name, and folders of nothing else
"""
