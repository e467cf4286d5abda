"""Views for those who answer people: what a privacy officer writes and looks up.

letters  the letter to the person who asked
traces   where a person's data are
"""
