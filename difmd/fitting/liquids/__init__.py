"""Liquids in replicas: how they are sampled, melted, equilibrated and simulated."""
