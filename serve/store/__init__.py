"""Weights: fetched from wherever they are, verified, sealed, and only then there."""

from serve.store.access import Access
from serve.store.manifest import FileRecord, Manifest
from serve.store.progress import Progress
from serve.store.store import Store
from serve.store.weights import Weights

__all__ = ["Access", "FileRecord", "Manifest", "Progress", "Store", "Weights"]
