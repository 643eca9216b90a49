"""Ed25519 signatures of a bundle's manifest, by `cryptography`."""

import base64
import binascii
import hashlib
import json
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from serve.bundle.form import canonical
from serve.errors import BadFile

# So that a signature made for a bundle means nothing elsewhere, and none from elsewhere here.
_DOMAIN = b"inhouse bundle manifest 1\0"
_RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
_DER = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

PrivateKey = Ed25519PrivateKey


class BadSignature(ValueError):
    """The signature is none, or not one of this manifest."""


def sign(key: PrivateKey, manifest: bytes) -> bytes:
    """The member that signs the manifest. Its length is the same for every manifest."""
    return canonical({
        "algorithm": "ed25519",
        "key": base64.b64encode(key.public_key().public_bytes(*_RAW)).decode(),
        "signature": base64.b64encode(key.sign(_DOMAIN + manifest)).decode(),
    })  # fmt: skip


def verify(member: bytes, manifest: bytes) -> str:
    """The fingerprint of the key that signed the manifest; BadSignature if none did."""
    try:
        record = json.loads(member)
        if record["algorithm"] != "ed25519" or len(record) != 3:
            raise BadSignature("is of an unknown kind")
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(record["key"], validate=True))
        key.verify(base64.b64decode(record["signature"], validate=True), _DOMAIN + manifest)
    except InvalidSignature as error:
        raise BadSignature("is not one of this manifest") from error
    except (LookupError, TypeError, binascii.Error, RecursionError) as error:
        raise BadSignature("cannot be read") from error
    except ValueError as error:
        raise BadSignature(str(error) if type(error) is BadSignature else "is broken") from error
    return fingerprint(key)


def fingerprint(key: Ed25519PublicKey) -> str:
    """The sha256 in hex of the key in DER: `openssl pkey -pubin -outform DER | sha256sum`."""
    return hashlib.sha256(key.public_bytes(*_DER)).hexdigest()


def read_private_key(path: Path) -> PrivateKey:
    """The key in a PEM file without a password; BadFile."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise BadFile(str(path), f"cannot be read: {error.strerror}") from error
    except TypeError as error:
        raise BadFile(str(path), "is locked with a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadFile(str(path), "holds no private key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadFile(str(path), "is no Ed25519 key (openssl genpkey -algorithm ed25519)")
    return key
