"""How pieces are spread over parts: pure arithmetic on the sizes that a tar gives them."""

from collections.abc import Sequence
from dataclasses import replace

from serve.bundle.form import MAX_MANIFEST_BYTES, Form, to_bytes
from serve.errors import SettingsError

BLOCK_BYTES = 512
END_BYTES = 2 * BLOCK_BYTES  # two empty blocks end a tar


def member_bytes(size: int) -> int:
    """What a member of this size takes: its header, its bytes, and what fills the last block."""
    return BLOCK_BYTES + -(-size // BLOCK_BYTES) * BLOCK_BYTES


def part_bytes(form: Form, head_bytes: int, number: int) -> int:
    """How long the part with this number (from 1) is."""
    first = sum(form.parts[: number - 1])
    sizes = [piece.size for piece in form.pieces()][first : first + form.parts[number - 1]]
    return head_bytes + sum(map(member_bytes, sizes)) + END_BYTES


def head_bytes(form: Form, more: Sequence[int]) -> int:
    """What stands before the pieces: manifest, members of the sizes in `more`, and the part."""
    return member_bytes(len(to_bytes(form))) + sum(map(member_bytes, more)) + 2 * BLOCK_BYTES


def spread(form: Form, more: Sequence[int], max_bytes: int | None) -> Form:
    """The form with its parts, each smaller than `max_bytes`; None: one part.

    SettingsError if not even one piece fits, or if the manifest were too large to be read.
    """
    sizes = [member_bytes(piece.size) for piece in form.pieces()]
    n_parts = 1
    # The list of parts stands in the manifest, and that in every part: once more if it has grown.
    while True:
        longest = replace(form, parts=(len(sizes),) * n_parts)
        if len(to_bytes(longest)) > MAX_MANIFEST_BYTES:
            raise SettingsError("bundle", "", "too many files for one bundle; make several")
        if max_bytes is None:
            return longest
        room = max_bytes - 1 - head_bytes(longest, more) - END_BYTES
        if room < (largest := max(sizes, default=0)):
            least = largest + max_bytes - room
            problem = f"is too small for these models: at least {least} bytes"
            raise SettingsError("flag", "--max-size", problem)
        parts = _fill(sizes, room)
        if len(parts) <= n_parts:
            return replace(form, parts=parts)
        n_parts = len(parts)


def _fill(sizes: Sequence[int], room: int) -> tuple[int, ...]:
    parts, left = [0], room
    for size in sizes:
        if size > left:
            parts.append(0)
            left = room
        parts[-1] += 1
        left -= size
    return tuple(parts)
