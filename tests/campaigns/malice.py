"""Models that somebody made to be loaded: every hash is right, and the content is not.

Only a look at the content can tell. Each family takes dice and a model, and gives the changed one.
"""

import json
import random
from typing import Any

from tests.campaigns.subject import INDEX, SHARDS, Files, joined, parted, text
from tests.campaigns.tampering import Family, Link, Tree

HUGE = (2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**200)
DTYPES = ("U9", "FLOAT32", "PICKLE", "bf16", "", "F16 ", "torch.bfloat16")


def header_length(dice: random.Random, files: Files) -> Tree:
    """The first eight bytes of a shard say another length of its header."""
    name = dice.choice(SHARDS)
    true = int.from_bytes(files[name][:8], "little")
    lies = [0, 1, true - dice.randint(1, true - 1), true + dice.randint(1, 400), len(files[name])]
    lies += [dice.getrandbits(bits) for bits in (16, 32, 63)]
    lie = dice.choice([value for value in lies if value != true])
    return {**files, name: lie.to_bytes(8, "little") + files[name][8:]}


def offsets(dice: random.Random, files: Files) -> Tree:
    """Two tensors overlap, or there is a hole between them, or one is somewhere else."""
    return _tensor(dice, files, "data_offsets", _moved)


def impossible_offsets(dice: random.Random, files: Files) -> Tree:
    """Offsets that overflow, are negative, or are no offsets."""

    def impossible(dice: random.Random, span: list[int]) -> Any:
        huge, small = dice.choice(HUGE), dice.randint(1, 10**6)
        return dice.choice(
            [
                [huge, huge + span[1] - span[0]],
                [span[0], span[1] + huge],
                [huge - small, span[1]],
                [-small, span[1] - span[0] - small],
                [-huge, span[1]],
                [span[1], span[0]],
                [span[0] + 0.5, span[1] + small],
                [str(span[0]), str(small)],
                [span[0], span[1], small],
                [small],
                {"begin": small},
                small,
                None,
            ]
        )

    return _tensor(dice, files, "data_offsets", impossible)


def shapes(dice: random.Random, files: Files) -> Tree:
    """A shape that is another size, overflows, or is no shape."""

    def wrong(dice: random.Random, shape: list[int]) -> Any:
        huge, small = dice.choice(HUGE), dice.randint(1, 10**6)
        by_overflow = [2**32, 2**32, *shape]  # their product is 0 in 64 bits
        return dice.choice(
            [
                [*shape, small + 1], [shape[0] + small, *shape[1:]], [huge], [huge, huge, small],
                by_overflow, [-size for size in shape], [-small, *shape], [0, small], [1.5, small],
                [str(size) for size in (*shape, small)], [True, small], small, {"0": small}, None,
            ]
        )  # fmt: skip

    return _tensor(dice, files, "shape", wrong)


def dtypes(dice: random.Random, files: Files) -> Tree:
    """A dtype that is unknown or has another size."""

    def wrong(dice: random.Random, _: str) -> Any:
        word = f"X{dice.getrandbits(24):x}"
        return dice.choice([*DTYPES, word, word, word, "F32", "U8", "I64", [word], 16, None])

    return _tensor(dice, files, "dtype", wrong)


def fields(dice: random.Random, files: Files) -> Tree:
    """A tensor lacks a field, has one too many, or is none; or the metadata are no texts."""
    name, word = dice.choice(SHARDS), f"{dice.getrandbits(32):08x}"
    header, data = parted(files[name])
    tensor = dice.choice([key for key in header if key != "__metadata__"])
    field = dice.choice(sorted(header[tensor]))
    without = {key: value for key, value in header[tensor].items() if key != field}
    header |= dice.choice(
        [
            {tensor: without | {f"x{word}": 1}},
            {tensor: header[tensor] | {word: word}},
            {tensor: [word]},
            {tensor: word},
            {"__metadata__": {word: 1}},
            {"__metadata__": [word]},
            {"__metadata__": {word: {"a": "b"}}},
        ]
    )
    return {**files, name: joined(header, data)}


def twice(dice: random.Random, files: Files) -> Tree:
    """A key occurs twice: readers differ in which one they believe."""
    name = dice.choice(SHARDS)
    header, data = parted(files[name])
    tensor = dice.choice([key for key in header if key != "__metadata__"])
    lie = header[tensor] | {"data_offsets": [0, dice.randint(1, 10**6)]}
    encoded = text(header)
    extra = dice.choice(
        [
            f'"{tensor}": {json.dumps(lie)}, '.encode(),
            f'"__metadata__": {{"x": "{dice.getrandbits(32)}"}}, '.encode(),
        ]
    )
    if dice.random() < 0.5:
        return {**files, name: joined(b"{" + extra + encoded[1:], data)}
    key, value = dice.choice(sorted(header[tensor].items()))
    word = f'"{key}": {json.dumps(value)}'.encode()
    both = word + b", " + f'"{key}": {dice.getrandbits(20)}'.encode()
    place = encoded.index(f'"{tensor}"'.encode())
    return {
        **files,
        name: joined(encoded[:place] + encoded[place:].replace(word, both, 1), data),
    }


def no_header(dice: random.Random, files: Files) -> Tree:
    """A header that is no JSON object."""
    name, noise = dice.choice(SHARDS), dice.randbytes(dice.randint(1, 200))
    _, data = parted(files[name])
    depth = dice.randint(1_000, 200_000)
    bad = [b"[" + noise, b"\xff" + noise, b"[" * depth, b'{"a":' * depth, text([noise.hex()]), b""]
    return {**files, name: joined(dice.choice(bad), data)}


def index(dice: random.Random, files: Files) -> Tree:
    """An index that names a missing shard, a place elsewhere, something else, or nothing."""
    content = json.loads(files[INDEX])
    tensor = dice.choice(sorted(content["weight_map"]))
    word = f"{dice.getrandbits(32):08x}"
    content["weight_map"][tensor] = dice.choice(_strange_names(word, ".safetensors"))
    noise: list[Any] = [[word], {"weight_map": {}}, {"weight_map": [word]}, {"map": word}, word]
    if dice.random() < 0.2:
        content = dice.choice(noise)
    return {**files, INDEX: text(content)}


def strange_name(dice: random.Random, files: Files) -> Tree:
    """A file whose name leads out of the folder, or is another's by case or encoding."""
    word = f"{dice.getrandbits(32):08x}"
    name = dice.choice(
        [
            f"../{word}.json", f"a/../../{word}.json", f"/etc/{word}.json", f"..\\{word}.json",
            f"~/{word}.json", f"{word}\n.json", f"{word}\x1b[2J.json", f"{word}\0.json",
            "CONFIG.json", "Tokenizer.json", "tokenizer_config.JSON", "\uff43onfig.json",
            "con\ufb01g.json", "to\u212aenizer.json", SHARDS[0].upper(),
        ]
    )  # fmt: skip
    return {**files, name: text({"word": word})}


def strange_shard(dice: random.Random, files: Files) -> Tree:
    """A shard, there and in the index, whose name leaves the folder or fits on no disk."""
    word, old = f"{dice.getrandbits(32):08x}", dice.choice(SHARDS)
    new = dice.choice(_strange_names(word, ".safetensors")[1:])  # the first is only missing
    content = files[INDEX].replace(old.encode(), json.dumps(new)[1:-1].encode())
    left = {name: content for name, content in files.items() if name != old}
    return left | {INDEX: content, new: files[old]}


def code(dice: random.Random, files: Files) -> Tree:
    """Python of the repository's own, named by `auto_map`."""
    word = f"m{dice.getrandbits(32):08x}"
    name = dice.choice(("config.json", "tokenizer_config.json"))
    classes = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer", "AutoProcessor")
    value = f"{word}.Model"
    kind = dice.choice(classes)
    named = dice.choice([value, [value, None], f"{word}/{word}--{value}"])
    content = json.loads(files[name]) | {"auto_map": {kind: named}}
    return {**files, name: text(content), f"{word}.py": b"raise SystemExit('remote code ran')"}


def pickles(dice: random.Random, files: Files) -> Tree:
    """Weights as pickles: alone, or in the place of a shard that the index names."""
    suffix = dice.choice((".bin", ".pt", ".pth", ".ckpt", ".pkl"))
    evil = b"cos\nsystem\n(S'echo %08x'\ntR." % dice.getrandbits(32)
    left = {name: content for name, content in files.items() if name not in SHARDS}
    if dice.random() < 0.5:
        del left[INDEX]
        return left | {f"pytorch_model{suffix}": evil}
    old = SHARDS[0]
    new = old.replace(".safetensors", suffix)
    renamed = {INDEX: files[INDEX].replace(old.encode(), new.encode()), new: evil}
    return left | {SHARDS[1]: files[SHARDS[1]]} | renamed


def pickled_shard(dice: random.Random, files: Files) -> Tree:
    """A pickle or an archive under the name of a shard."""
    evil = dice.choice([b"\x80\x04\x95", b"PK\x03\x04", b"GGUF\x03\0\0\0", b"\x7fELF"])
    return {**files, dice.choice(SHARDS): evil + dice.randbytes(dice.randint(50, 500))}


def no_settings(dice: random.Random, files: Files) -> Tree:
    """A config.json that is none."""
    noise = dice.randbytes(dice.randint(0, 40)).hex().encode()
    bad = dice.choice([b"[" + noise, b"{" + noise, b'["%s"]' % noise, b"\xff" + noise])
    return {**files, "config.json": bad}


def shard_out(dice: random.Random, files: Files) -> Tree:
    """A shard is a symbolic link out of the folder, to true content."""
    name = dice.choice(SHARDS)
    header, data = parted(files[name])
    header["__metadata__"] = {"format": f"{dice.getrandbits(32)}"}
    return {**files, name: Link("symbolic", joined(header, data))}


FAMILIES: dict[Family, tuple[str, ...]] = {
    header_length: ("repository", "folder"),
    offsets: ("repository", "folder"),
    impossible_offsets: ("repository", "folder"),
    shapes: ("repository", "folder"),
    dtypes: ("repository", "folder"),
    fields: ("repository", "folder"),
    twice: ("repository", "folder"),
    no_header: ("repository", "folder"),
    index: ("repository", "folder"),
    code: ("repository", "folder"),
    pickles: ("repository", "folder"),
    pickled_shard: ("repository", "folder"),
    no_settings: ("repository", "folder"),
    strange_name: ("repository",),
    strange_shard: ("repository",),
    shard_out: ("folder",),
}


def _tensor(dice: random.Random, files: Files, field: str, change: Any) -> Tree:
    name = dice.choice(SHARDS)
    header, data = parted(files[name])
    tensor = dice.choice([key for key in header if key != "__metadata__"])
    true = header[tensor][field]
    while (wrong := change(dice, true)) == true:
        pass
    header[tensor] = header[tensor] | {field: wrong}
    return {**files, name: joined(header, data)}


def _moved(dice: random.Random, span: list[int]) -> list[int]:
    by = dice.choice([-1, 1]) * dice.randint(1, span[1] or 1)
    begin, end = span
    return dice.choice(
        [[begin + by, end], [begin, end + by], [begin + by, end + by], [begin, begin]]
    )


def _strange_names(word: str, suffix: str) -> list[str]:
    return [
        f"{word}{suffix}", f"../{word}{suffix}", f"../../../../etc/{word}{suffix}",
        f"/etc/{word}{suffix}", f"~/{word}{suffix}", f"{word * 38}{suffix}",
        f"a/../../{word}{suffix}", f"{word}\0{suffix}", f"{word}\n{suffix}",
        f"mode\u0301l{word}{suffix}", f"..\\{word}{suffix}", f"\u2024\u2024/{word}{suffix}",
        f"//host/{word}{suffix}", f"{word}.bin", f"{word}.py", word,
    ]  # fmt: skip
