"""Rorqual: the DeepSeek system as open software, from one laptop's CPU to a cluster."""

__version__ = "0.1.0"

__all__ = ["__version__"]
