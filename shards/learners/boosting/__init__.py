"""Boosted trees of LightGBM, an optional dependency (``pip install 'sisa-ray[boosting]'``).

learner  continues boosting slice by slice
library  the one place that imports LightGBM, and what of it decides bits
"""
