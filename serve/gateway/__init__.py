"""The HTTP door: `python -m serve.gateway CONFIG_JSON`, one process of its own."""

from serve.gateway.config import Config

__all__ = ["Config"]
