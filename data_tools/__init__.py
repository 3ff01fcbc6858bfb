"""Converts labels of other formats to TFRecords, and inspects them.

Each file here with a `main` is a command; readers/ reads labels, conversion/ makes records of them,
analysis/ measures how default boxes fit.
"""
