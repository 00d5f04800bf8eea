"""Measured quantities to fit to, one file each."""
