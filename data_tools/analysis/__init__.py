"""Measures of converted data sets: their objects, and how well default boxes cover them."""
