"""Inhouse: open-weight language models, served in your own house."""

__version__ = "0.1.0"
