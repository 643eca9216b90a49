"""The store, read-only, in the Hub's own protocol, so that other machines pull from this one."""

from serve.mirror.server import Mirror, Terms
from serve.mirror.stock import Repo, Stock

__all__ = ["Mirror", "Repo", "Stock", "Terms"]
