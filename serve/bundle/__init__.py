"""Weights in one file, for the way across an air gap: export, verify, import, signatures.

In: weights that the store holds. Out: the same weights, verified and sealed by another store.
"""

from serve.bundle.inspection import inspect
from serve.bundle.intake import Importer
from serve.bundle.signature import read_private_key
from serve.bundle.trust import Trust
from serve.bundle.writer import Order, export

__all__ = ["Importer", "Order", "Trust", "export", "inspect", "read_private_key"]
