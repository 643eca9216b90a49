"""Who signed a bundle, and whether that is enough."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from serve.bundle import openssf, signature
from serve.bundle.openssf import PublicKey
from serve.bundle.part import OPENSSF, SIGNATURE, Head
from serve.errors import BadFile, NotAllowed


@dataclass(frozen=True, slots=True)
class Trust:
    """`signers`: fingerprints of the keys one of which must have signed; none: whoever, or nobody.
    `openssf`: those of them that sign by OpenSSF's rules.

    A signature that is wrong is refused in any case.
    """

    signers: tuple[str, ...] = ()
    openssf: tuple[PublicKey, ...] = ()

    @classmethod
    def in_keys(cls, paths: Iterable[Path]) -> Self:
        """In the public keys in these PEM files: Ed25519, or of an elliptic curve for OpenSSF's
        signatures. BadFile if one is none."""
        keys = [(path, _read_public_key(path)) for path in paths]
        plain = [signature.fingerprint(key) for _, key in keys if isinstance(key, Ed25519PublicKey)]
        curves = tuple(
            openssf.public_key(path, key)
            for path, key in keys
            if isinstance(key, EllipticCurvePublicKey)
        )
        return cls((*plain, *(key.fingerprint for key in curves)), curves)

    def check(self, head: Head) -> str | None:
        """The fingerprint of the key that signed, None if none did, or none that is known here.
        BadFile, NotAllowed; ExtraMissing."""
        found = self._signers_of(head)
        if self.signers and not set(found) & set(self.signers):
            value = found[0] if found else "not signed"
            raise NotAllowed(head.path.name, "policy.signers", value, self.signers)
        return next((one for one in found if one in self.signers), next(iter(found), None))

    def _signers_of(self, head: Head) -> list[str]:
        members, found = head.signatures, []
        try:
            if SIGNATURE in members:
                found.append(signature.verify(members[SIGNATURE], head.manifest))
            if OPENSSF in members:
                signer = openssf.verify(members[OPENSSF], head.manifest, self.openssf)
                found += [signer] if signer else []
        except signature.BadSignature as error:
            raise BadFile(str(head.path), f"its signature {error}") from error
        return found


def _read_public_key(path: Path) -> Ed25519PublicKey | EllipticCurvePublicKey:
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise BadFile(str(path), f"cannot be read: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadFile(str(path), "holds no public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey | EllipticCurvePublicKey):
        raise BadFile(str(path), "is no Ed25519 key (openssl pkey -in KEY.pem -pubout)")
    return key
