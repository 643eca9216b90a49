"""Ways in which files of weights come to be other than what was verified."""

import os
from collections.abc import Callable
from pathlib import Path


def flip_bit(file: Path) -> None:
    """One bit in the middle, written in place."""
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        byte = opened.read(1)[0]
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte ^ 4]))


def flip_bit_secretly(file: Path) -> None:
    """The same by somebody who sets the times back."""
    before = file.stat()
    flip_bit(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def extend(file: Path) -> None:
    with file.open("ab") as opened:
        opened.write(b"\0")


def fill_with_zeros(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def replace_by_another(file: Path) -> None:
    """Another file of the same size and time under the same name."""
    before = file.stat()
    other = file.with_name("other")
    other.write_bytes(b"x" * before.st_size)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)


DAMAGES: tuple[Callable[[Path], None], ...] = (
    flip_bit, flip_bit_secretly, truncate, extend, fill_with_zeros, replace_by_another,
)  # fmt: skip
