"""What keeps tenants' prefix caches apart: a salt that only we can make. Pure but for a memory."""

import hmac

_MOST = 4096  # tenants whose salt is remembered


class Salts:
    """One per gateway process; all of a machine have the same `secret`.

    Without it nobody can tell the salt of a tenant, so nobody can find out, by how fast an answer
    comes, whether another tenant has sent a certain prompt.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._known: dict[str, bytes] = {}

    def of(self, tenant: str, own: bytes = b"") -> bytes:
        """64 hexadecimal digits. `own`: what the client sent as its salt: it divides the caches of
        its tenant further, and never reaches those of another."""
        salt = None if own else self._known.get(tenant)
        if salt is None:
            name = tenant.encode()
            text = b"%d:%b%b" % (len(name), name, own)
            salt = hmac.digest(self._secret, text, "sha256").hex().encode()
            if not own and len(self._known) < _MOST:
                self._known[tenant] = salt
        return salt
