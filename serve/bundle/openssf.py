"""OpenSSF model signatures (`model.sig`), by the optional package `model-signing`.

Signed is a folder with one file in it, the bundle's manifest, so that the package's own program
proves it too. Its verifier (1.1.1, `Config.verify`) leaves out what the signature itself wishes to
have left out (`ignore_paths`) and would so be content with an empty folder; here nothing may be.
"""

import base64
import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from serve.bundle.signature import BadSignature
from serve.errors import BadFile, ExtraMissing

_FILE = "manifest.json"
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_PUBLIC = serialization.PublicFormat.SubjectPublicKeyInfo
_ROOM_BYTES = 512


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key on an elliptic curve. `hint`: how a signature names it; `fingerprint`: the sha256 of
    the key in DER, in hex."""

    path: Path
    hint: str
    fingerprint: str


def public_key(path: Path, key: ec.EllipticCurvePublicKey) -> PublicKey:
    """The key that was read at `path`; BadFile if its curve is none that is signed with."""
    if key.curve.name not in _CURVES:
        raise BadFile(str(path), f"is a key on the curve {key.curve.name}; {_CURVES} are taken")
    pem, der = (
        hashlib.sha256(key.public_bytes(encoding, _PUBLIC)).hexdigest()
        for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER)
    )
    return PublicKey(path, pem, der)


def sign(path: Path, manifest: bytes) -> bytes:
    """The member that signs the manifest with the private key at `path`; as long for every
    manifest. BadFile, ExtraMissing."""
    _check_private(path)
    with _folder(manifest) as folder:
        package = _Package("sign by OpenSSF's rules")
        signer = package.signing.Config().use_elliptic_key_signer(private_key=path)
        target = folder.with_name("model.sig")
        signer.set_hashing_config(package.hashing_config()).sign(folder, target)
        member = target.read_bytes()
    # ECDSA's signatures differ in length by a few bytes; spaces at the end are JSON still.
    return member.ljust((len(member) // _ROOM_BYTES + 2) * _ROOM_BYTES)


def verify(member: bytes, manifest: bytes, keys: Sequence[PublicKey]) -> str | None:
    """The fingerprint of the key that signed the manifest, None if it is none of these.
    BadSignature, ExtraMissing."""
    hint = _dig(member, "verificationMaterial", "publicKey", "hint")
    key = next((one for one in keys if one.hint == hint), None)
    if key is None:
        return None
    with _folder(manifest) as folder:
        package = _Package("verify OpenSSF signatures")
        target = folder.with_name("model.sig")
        target.write_bytes(member)
        verifier = package.verifying.Config().use_elliptic_key_verifier(public_key=key.path)
        try:
            verifier.set_hashing_config(package.hashing_config()).verify(folder, target)
        except (ValueError, LookupError, TypeError, AttributeError, InvalidSignature) as error:
            raise BadSignature("by OpenSSF's rules is not one of this manifest") from error
    _check_statement(_dig(member, "dsseEnvelope", "payload"), manifest)
    return key.fingerprint


def _check_statement(payload: Any, manifest: bytes) -> None:
    """BadSignature unless the whole manifest, and nothing but it, is what was signed."""
    predicate = _dig(base64.b64decode(payload), "predicate")
    digest = hashlib.sha256(manifest).hexdigest()
    wanted = [{"name": _FILE, "digest": digest, "algorithm": "sha256"}]
    is_whole = isinstance(predicate, dict) and predicate.get("resources") == wanted
    if not is_whole or _dig(json.dumps(predicate).encode(), "serialization", "ignore_paths"):
        raise BadSignature("by OpenSSF's rules leaves something out")


def _check_private(path: Path) -> None:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise BadFile(str(path), f"cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadFile(str(path), "holds no private key in PEM without a password") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        raise BadFile(str(path), "is no key on an elliptic curve (openssl ecparam -genkey)")


def _dig(text: bytes, *keys: str) -> Any:
    """A value inside a JSON object; None where there is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSignature("by OpenSSF's rules cannot be read") from error
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


@contextmanager
def _folder(manifest: bytes) -> Iterator[Path]:
    """A folder that holds the manifest alone; it always has the same name, which is signed too."""
    with tempfile.TemporaryDirectory(prefix="inhouse-") as place:
        folder = Path(place) / "bundle"
        folder.mkdir()
        (folder / _FILE).write_bytes(manifest)
        yield folder


class _Package:
    """The optional package, imported when it is needed: that takes more than a second."""

    def __init__(self, purpose: str) -> None:
        try:
            from model_signing import hashing, signing, verifying
        except ImportError as error:
            raise ExtraMissing(purpose, "signing") from error
        self._hashing: Any = hashing  # its types are not whole
        self.signing, self.verifying = signing, verifying

    def hashing_config(self) -> Any:
        """Every file, and no exceptions."""
        config = self._hashing.Config().use_file_serialization(hashing_algorithm="sha256")
        return config.set_ignored_paths(paths=[], ignore_git_paths=False)
