"""Helpers that other packages of difmd share; nothing here is public."""
