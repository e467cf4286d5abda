"""Data: from users' files and tables to arrays.

sources           which files, folders and globs a location names
remote_files      files in a bucket: found, and read piece by piece
inventory         digests of a source's files
csv_text          a CSV file's bytes as text: encoding, delimiter, and files that are not CSV
readers           Parquet, Arrow and CSV files as batches of columns
columns           which columns to read, and the ids, labels and features in them
fragments         a source divided into pieces that several processes read
frames            tables and frames in memory
samples           every so many data points of a source, in memory
arrays            arrays, frames and labels as an estimator takes them
profile           what ``init`` and ``doctor`` report about a data file
cleaned           copies of data files without some of their rows
identified        copies of CSV files with a column of ids
prediction_files  features to predict are read, predictions are written
messages          features and answers as they travel between processes and over HTTP
folders/          folders whose files are one table, a dataset or images
encoding/         columns that are not plain numbers, as [data.encode] declares them
"""
