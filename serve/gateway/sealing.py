"""AES-256-GCM under a key for each file. Apart from the spool, and imported only where there is
one: the library takes a seventh of a gateway's memory.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_AES_256_BYTES = 32


class Cipher:
    """`key`: secret; what is used is made of it, the salt, and what it is for."""

    __slots__ = ("_aes",)

    def __init__(self, key: bytes, salt: bytes, purpose: bytes) -> None:
        self._aes = AESGCM(HKDF(SHA256(), _AES_256_BYTES, salt, purpose).derive(key))

    def seal(self, nonce: bytes, text: bytes, bound: bytes) -> bytes:
        """`nonce`: of 12 bytes, never twice. `bound`: what has to be the same when it is opened."""
        return self._aes.encrypt(nonce, text, bound)

    def open(self, nonce: bytes, box: bytes, bound: bytes) -> bytes | None:
        """None if anything is not as it was sealed."""
        try:
            return self._aes.decrypt(nonce, box, bound)
        except InvalidTag:
            return None
