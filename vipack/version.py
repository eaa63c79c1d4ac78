"""The version, which files and exports carry."""

__all__ = ["__version__"]

__version__ = "0.1.0"
