"""Who may enter: API keys, known by their digests only."""

from serve.ledger.keys import Keyring, digest_key

__all__ = ["Keyring", "digest_key"]
