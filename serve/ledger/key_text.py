"""The text of an API key: `ih-ID-SECRET`, made here, told once, never kept. Pure but for chance.

ID is what people and logs call the key by. SECRET has 256 bits and ends with a checksum of
the whole, so that a typo is told from a stranger without asking anybody.
"""

import re
import secrets
import zlib
from typing import NamedTuple

from serve.errors import SettingsError

# Without those that look alike: people read ids to each other.
_ID_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 10
_SECRET_BITS = 256
_SECRET_LENGTH = 43  # letters that 256 bits take
_SUM_LENGTH = 6  # letters that 32 bits take
_FORM = re.compile(
    rf"ih-([{_ID_LETTERS}]{{{_ID_LENGTH}}})-[0-9A-Za-z]{{{_SECRET_LENGTH + _SUM_LENGTH}}}", re.ASCII
)


class KeyText(NamedTuple):
    """A key's name for everybody, and its text for its holder."""

    id: str
    text: str


def make_key_text() -> KeyText:
    """A new key."""
    id = "".join(secrets.choice(_ID_LETTERS) for _ in range(_ID_LENGTH))
    bare = f"ih-{id}-{_encode(secrets.randbits(_SECRET_BITS), _SECRET_LENGTH)}"
    return KeyText(id, bare + _sum_of(bare))


def id_in(text: str) -> str:
    """The id of a key's text; SettingsError, which does not quote it, if it has a typo."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise SettingsError("stdin", "", "this is no key of ours: they look like ih-ID-SECRET")
    if _sum_of(text[:-_SUM_LENGTH]) != text[-_SUM_LENGTH:]:
        raise SettingsError("stdin", "", f"a typo, or not whole: the key {found[1]}")
    return found[1]


def _sum_of(bare: str) -> str:
    return _encode(zlib.crc32(bare.encode()), _SUM_LENGTH)


def _encode(number: int, length: int) -> str:
    letters = []
    for _ in range(length):
        number, rest = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[rest])
    return "".join(reversed(letters))
