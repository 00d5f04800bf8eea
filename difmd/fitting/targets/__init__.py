"""Measured quantities that a fit aims at."""
