"""The version of difmd, which files carry."""

__version__ = "0.2.0"
