"""The HTTP door: `python -m serve.gateway CONFIG_JSON`, one process of its own."""

from serve.gateway.config import Config
from serve.gateway.origins import parse_networks
from serve.gateway.safety import Bounds
from serve.gateway.tls import certificates

__all__ = ["Bounds", "Config", "certificates", "parse_networks"]
