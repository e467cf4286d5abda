"""Letters: what the operator answers to a person who asked, in plain words, as one printable HTML file.

A letter says what was asked and when, what was found, what was removed and when, what is proven and what is not, and
how to check the receipt. It is written from a request's status and its receipt, both without names. The only personal
part is what an officer gives for the salutation, and the salt that the request's answer had; neither is kept.
May touch: values of ``coordinator``, Jinja2 (only ``page``). Must not know: stores, HTTP, Ray.

letter    a letter's content, as values
answers   the answer itself, by kind and state of a request
evidence  what a signed statement says, in plain words
words     dates, numbers and names of files in a letter
page      a letter as HTML
"""
