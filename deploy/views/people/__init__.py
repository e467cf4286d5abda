"""Views for privacy officers, who answer people's requests: the letters they write, the records they look up.

letters  the letter to the person who made a request
traces   where a person's data are
"""
