"""Examination of data sets: units, signs, stress conventions, repeats and outliers."""
