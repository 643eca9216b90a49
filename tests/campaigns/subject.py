"""The small valid model of the campaigns, as bytes: two shards with an index, and a tokenizer."""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"
Header = dict[str, Any]
Files = Mapping[str, bytes]


def subject(seed: int = 0, tensor_bytes: int = 256) -> dict[str, bytes]:
    """The model's files; everything in them is fetched. Another seed, other weights."""
    dice, names = random.Random(seed), ("embed", "layer.0.up", "layer.0.down", "norm", "head")
    halves = names[:3], names[3:]
    shards = {
        shard: joined(*one_shard(half, dice, tensor_bytes))
        for shard, half in zip(SHARDS, halves, strict=True)
    }
    weight_map = {name: shard for shard, half in zip(SHARDS, halves, strict=True) for name in half}
    vocab = {chr(97 + number): number for number in range(26)}
    return shards | {
        INDEX: text({"metadata": {"total_size": 5 * tensor_bytes}, "weight_map": weight_map}),
        "config.json": text(
            {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16}
        ),
        "generation_config.json": text({"temperature": 0.7, "eos_token_id": 2}),
        "tokenizer.json": text({"version": "1.0", "model": {"type": "BPE", "vocab": vocab}}),
        "tokenizer_config.json": text({"tokenizer_class": "PreTrainedTokenizerFast"}),
        "chat_template.jinja": b"{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}",
    }


def one_shard(names: Sequence[str], dice: random.Random, size: int) -> tuple[Header, bytes]:
    """A header with these tensors, each of `size` bytes, and their data."""
    header: Header = {"__metadata__": {"format": "pt"}}
    for number, name in enumerate(names):
        span = [number * size, (number + 1) * size]
        header[name] = {"dtype": "BF16", "shape": [2, size // 4], "data_offsets": span}
    return header, dice.randbytes(len(names) * size)


def joined(header: Header | bytes, data: bytes) -> bytes:
    """A safetensors file with this header, true or not."""
    encoded = header if isinstance(header, bytes) else text(header)
    return len(encoded).to_bytes(8, "little") + encoded + data


def parted(file: bytes) -> tuple[Header, bytes]:
    """Header and data of a true safetensors file."""
    length = int.from_bytes(file[:8], "little")
    return json.loads(file[8 : 8 + length]), file[8 + length :]


def text(value: Any) -> bytes:
    """As JSON."""
    return json.dumps(value).encode()


def split(files: Files) -> dict[str, bytes]:
    """A model of one `model.safetensors` as the same model in two shards with an index."""
    header, data = parted(files["model.safetensors"])
    metadata = {"__metadata__": header.pop("__metadata__", {"format": "pt"})}
    names = sorted(header)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    made = {name: value for name, value in files.items() if name != "model.safetensors"}
    weight_map: dict[str, str] = {}
    for shard, half in zip(SHARDS, halves, strict=True):
        own, pieces, begin = dict(metadata), [], 0
        for name in half:
            old_begin, old_end = header[name]["data_offsets"]
            pieces.append(data[old_begin:old_end])
            span = [begin, begin + len(pieces[-1])]
            own[name] = header[name] | {"data_offsets": span}
            begin = span[1]
            weight_map[name] = shard
        made[shard] = joined(own, b"".join(pieces))
    made[INDEX] = text({"metadata": {"total_size": len(data)}, "weight_map": weight_map})
    return made


def digest(files: Mapping[str, bytes | object]) -> str:
    """What stands for exactly this content: two models with other digests are different."""
    rows = sorted((name, _content(value)) for name, value in files.items())
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def _content(value: bytes | object) -> str:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else repr(value)
