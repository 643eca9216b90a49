"""Bundles of the campaigns' model: signed, in small pieces, and imported by who trusts the key."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from serve.bundle import Importer, Order, Trust, export
from serve.bundle.signature import fingerprint
from serve.catalog import Catalog
from serve.policy import Policy
from serve.store import Progress, Store
from tests.store.models import HUB_SPEC, Recorder

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def packed(store: Store, target: Path, piece_bytes: int = 4096) -> bytes:
    """The model that the store holds, as a signed bundle at `target`; its bytes."""
    order = Order(target, 1_700_000_000, key=KEY, piece_bytes=piece_bytes)
    export([HUB_SPEC], store, Policy(), order, Recorder())
    return target.read_bytes()


def unpacked(store: Store, bundle: Path, progress: Progress | None = None) -> None:
    """Import the bundle; nothing but the key's signature is good enough."""
    trust = Trust((fingerprint(KEY.public_key()),))
    importer = Importer(store, Catalog((HUB_SPEC,)), trust, progress or Recorder())
    importer.take([bundle])
