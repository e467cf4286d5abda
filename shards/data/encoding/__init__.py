"""Encoding: from users' columns to features, as the table ``[data.encode]`` declares.

Pure functions over Arrow arrays. The same cell gives the same features in training, evaluation, prediction, over HTTP
and at sites, in every format.

cells    cells as texts or numbers, and what is wrong with one
numbers  numbers, dates and truth values
texts    categories, hashes, words and tokens
images   images, from bytes or files
image_forms  sizes of the first images, for ``init``
apply    one column, by the kind of its encoder
"""
