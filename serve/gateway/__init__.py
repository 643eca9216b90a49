"""The HTTP door: `python -m serve.gateway CONFIG_JSON`, one process of its own."""

from serve.gateway.config import Config
from serve.gateway.safety import Bounds

__all__ = ["Bounds", "Config"]
