"""Who holds which key."""

import hashlib

import pytest

from serve.quota import Key, Keyring, digest_key

KEY = "ih-secret"
RING = Keyring(Key(id, digest_key(text), "t") for id, text in (("a", KEY), ("b", "ih-other")))


def test_a_digest_is_the_sha256_in_hex() -> None:
    assert digest_key("clé") == hashlib.sha256("clé".encode()).hexdigest()


@pytest.mark.parametrize(
    ("value", "id"),
    [
        (b"Bearer ih-secret", "a"),
        (b"bearer ih-secret", "a"),
        (b"BEARER   ih-other ", "b"),
        (b"ih-secret", "a"),  # x-api-key
        (b"Bearer", None),
        (b"Bearer ", None),
        (b"Bearer ih-secret2", None),
        (b"Bearer ih-secre", None),
        (b"Basic ih-secret", None),
        (b"Bearer\tih-secret", None),
        (b" Bearer ih-secret", None),
        (b" ih-secret", None),
        (b"Bearer  \t ih-secret\t ", "a"),
        (b"Bearer Bearer ih-secret", None),
        (b"", None),
        (b"\xff\x00", None),
        (digest_key(KEY).encode(), None),
    ],
)
def test_only_known_keys_enter(value: bytes, id: str | None) -> None:
    found = RING.find(value)
    assert (found.id if found else None) == id


@pytest.mark.parametrize("value", [b"", b"Bearer anything", b"Bearer "])
def test_an_empty_keyring_knows_nobody(value: bytes) -> None:
    assert Keyring().find(value) is None
