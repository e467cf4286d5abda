"""Data: from users' files and tables to arrays.

sources           which files, folders and globs a location names
remote_files      those that lie in a bucket
table_formats     folders of Delta, Iceberg and Hudi tables, which are refused
csv_text          a CSV file's bytes as text: encoding, delimiter, what is no CSV at all
readers           Parquet, Arrow and CSV files as batches of columns
columns           which columns are wanted; ids, labels and features out of them
fragments         a source cut into pieces that many processes read
frames            tables and frames in memory
profile           what ``init`` and ``doctor`` see in a data file
cleaned           copies of data files without some of their rows
prediction_files  features to be predicted in, answers out
messages          features and answers as they travel between processes and over HTTP
"""
