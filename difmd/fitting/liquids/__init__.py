"""Liquids at a state point: melted, equilibrated, sampled, and measured."""
