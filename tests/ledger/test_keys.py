import hashlib

import pytest

from serve.ledger import Keyring, digest_key

KEY = "ih-secret"
RING = Keyring({digest_key(KEY), digest_key("ih-other")})


def test_a_digest_is_the_sha256_in_hex() -> None:
    assert digest_key("clé") == hashlib.sha256("clé".encode()).hexdigest()


@pytest.mark.parametrize(
    ("value", "is_admitted"),
    [
        (b"Bearer ih-secret", True),
        (b"bearer ih-secret", True),
        (b"BEARER   ih-other ", True),
        (b"ih-secret", True),  # x-api-key
        (b"Bearer", False),
        (b"Bearer ", False),
        (b"Bearer ih-secret2", False),
        (b"Bearer ih-secre", False),
        (b"Basic ih-secret", False),
        (b"Bearer Bearer ih-secret", False),
        (b"", False),
        (b"\xff\x00", False),
        (None, False),
        (digest_key(KEY).encode(), False),
    ],
)
def test_only_known_keys_enter(value: bytes | None, is_admitted: bool) -> None:
    assert RING.admits(value) is is_admitted


@pytest.mark.parametrize("value", [None, b"", b"Bearer anything"])
def test_an_empty_keyring_asks_for_no_key(value: bytes | None) -> None:
    assert Keyring().admits(value)
