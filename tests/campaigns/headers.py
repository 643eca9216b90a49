"""The campaign `headers`: our check of safetensors files beside the reference reader, on the same
true, nearly true and wrong files. We may refuse more; what it refuses, we must refuse.
"""

import base64
import json
import os
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serve.engine import Runtimes
from serve.errors import UnsafeWeights
from serve.settings import load
from serve.store.safetensors import check_file
from tests.campaigns import malice
from tests.campaigns.report import Report
from tests.campaigns.subject import SHARDS, Header, joined, subject, text

PROMISE = (
    "safetensors files, true, nearly true and wrong, shown to our check and to the reference "
    "reader (the `safetensors` library of the runtime): what the reference refuses, we refuse."
)
SIZES = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "F4": 4,
}  # fmt: skip
SIGNS = (
    b" ", b"\n", b"\t", b"\0", b"{", b"}", b"[", b"]", b",", b":", b'"', b"-", b"-0", b"0", b"1",
    b"e0", b".0", b"1e2", b"null", b"true", b"NaN", b"Infinity", b"\\ud800", b"\\u0000", b"\xff",
    b"\xef\xbb\xbf", b"\xc3\xa9", b"//", b"18446744073709551615", b"18446744073709551616",
    b'"a":1,', b'"__metadata__":{},', b'"__metadata__":null,', b'"dtype":"U8",', b"[],",
)  # fmt: skip
MALICE = (
    malice.header_length, malice.offsets, malice.impossible_offsets, malice.shapes, malice.dtypes,
    malice.fields, malice.twice, malice.no_header,
)  # fmt: skip
ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig", "utf-7")
Ask = Callable[[bytes], str]


def run(
    count: int, seed: int, place: Path, told: Callable[[str], None] = lambda _: None,
    python: Path | None = None,
) -> Report:  # fmt: skip
    """Show as many files to both. RuntimeMissing without a Python that has the library."""
    report = Report("headers", PROMISE, ("file", "we say", "the reference says"))
    with reference(python or runtime_python()) as ask:
        for kind, file in files(random.Random(seed), count):
            ours, theirs = our_word(file), ask(file)
            answers = kind, ours.split()[0], theirs.split()[0]
            if ours == "yes" and theirs != "yes":
                report.failed(f"{kind}: accepted here, {theirs}: {file[:300]!r}", *answers)
                told(report.failures[-1])
            else:
                report.passed(*answers)
    return report


def runtime_python() -> Path:
    """The Python of the runtime that is installed here; RuntimeMissing."""
    settings = load({}, dict(os.environ))
    return Runtimes(settings.paths.home, settings.engine.python).find("cpu").python


@contextmanager
def reference(python: Path) -> Iterator[Ask]:
    """The reference reader in its own Python, to be asked for its word on a file."""
    program = Path(__file__).with_name("reference_reader.py")
    with subprocess.Popen(
        [str(python), str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdin is not None and reader.stdout is not None
        to_reader, from_reader = reader.stdin, reader.stdout

        def ask(file: bytes) -> str:
            to_reader.write(base64.b64encode(file) + b"\n")
            to_reader.flush()
            return from_reader.readline().decode().strip()

        yield ask


def our_word(file: bytes) -> str:
    """What our check says of a file."""
    with tempfile.NamedTemporaryFile() as place:
        place.write(file)
        place.flush()
        try:
            check_file(Path(place.name), "model.safetensors")
        except UnsafeWeights as error:
            return f"no {error.reason}"
    return "yes"


def files(dice: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """Files of each kind in turn."""
    makers = {
        "true": _true,
        "nearly true": _edited,
        "other encoding": _encoded,
        "wrong": _malicious,
    }
    for number in range(count):
        kind = list(makers)[number % len(makers)]
        yield kind, makers[kind](dice)


def true_file(dice: random.Random) -> tuple[Header, bytes]:
    """A true header of some tensors, in any order and form, and its data."""
    header: Header = {}
    begin = 0
    for number in range(dice.randint(0, 4)):
        dtype = dice.choice(sorted(SIZES))
        shape = [dice.choice((0, 1, 1, 2, 2, 4, 6)) for _ in range(dice.randint(0, 3))]
        bits = SIZES[dtype]
        for length in shape:
            bits *= length
        if bits % 8:
            shape, bits = [2, *shape], bits * 2
        name = dice.choice((f"t{number}", f"\u00e9.{number}", f"a\n{number}", f"{number}", ""))
        if name not in header:
            span = [begin, begin + bits // 8]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": span}
            begin = span[1]
    if dice.random() < 0.3:
        header["__metadata__"] = dice.choice(({}, {"format": "pt"}, {"a": "", "": "\u2028"}))
    names = list(header)
    dice.shuffle(names)
    return {name: header[name] for name in names}, dice.randbytes(begin)


def _true(dice: random.Random) -> bytes:
    header, data = true_file(dice)
    indent, spaces = dice.choice((None, None, 0, 2)), b" " * dice.choice((0, 0, 1, 7))
    before = dice.choice((b"", b"", b"", b" ", b"\n"))
    encoded = json.dumps(header, indent=indent, ensure_ascii=dice.random() < 0.5).encode()
    return joined(before + encoded + spaces, data)


def _edited(dice: random.Random) -> bytes:
    header, data = true_file(dice)
    encoded = bytearray(text(header))
    for _ in range(dice.randint(1, 2)):
        at = dice.randrange(len(encoded) + 1)
        until = at + dice.choice((0, 0, 0, 1, 1, 2, 5))
        encoded[at:until] = dice.choice((b"", *SIGNS))
    more: list[Any] = [b"", b"", b"", b"\0", data[:1]]
    return joined(bytes(encoded), data + dice.choice(more))


def _encoded(dice: random.Random) -> bytes:
    header, data = true_file(dice)
    return joined(json.dumps(header).encode(dice.choice(ENCODINGS)), data)


def _malicious(dice: random.Random) -> bytes:
    true = subject(dice.getrandbits(16), 64)
    changed = dice.choice(MALICE)(dice, true)
    file = next(changed[shard] for shard in SHARDS if changed[shard] != true[shard])
    assert isinstance(file, bytes)
    return file
