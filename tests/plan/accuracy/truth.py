"""memory_ground_truth.csv as launches that can be planned: one row, one start of a real engine."""

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serve.geometry import read_geometry
from serve.hardware import Gpu, imagine, known_gpus
from serve.plan.plan import Layout
from serve.plan.versions import rules
from serve.shape import Geometry, Parallel

GIB = 2**30

# What the table says in words, as names that we know. A card that is not here counts as H100.
CARDS = {
    "H100 80GB": "H100", "80GB (H100/A100)": "A100", "80GB": "A100", "L40S": "L40S",
    "L40S 48GB (8 in node)": "L40S", "RTX PRO 6000 96GB (97,887 MiB)": "RTX PRO 6000",
    "H100 80GB x4": "H100", "L4 24GB x4": "L4", "L4 24GB": "L4", "H200 x8": "H200",
    "DGX Spark (GB10) x2": "GB10", "RTX 4090 24GB": "RTX 4090", "RTX 3090 x2": "RTX 3090",
    "A100 80GB": "A100", "24 GB card": "RTX 4090", "96 GB card x4": "H100 NVL", "H200 x2": "H200",
}  # fmt: skip
VERSIONS = {
    "v1 (2025)": "0.10",
    "2026-09 nightly": "0.30",
    "0.5.x (V0)": "0.6",
    "xinference 0.15.4 docker (vLLM 0.6.x V0)": "0.6",
    "": "0.10",  # most rows are of 2025
}
# The configs are of unquantised checkpoints, or of the maker's own quantisation.
QUANTIZATIONS = {"fp8": "fp8", "awq int4": "awq", "fp8 online": "fp8"}
# A published shape that has no file: the row's notes name layers, KV heads and head size.
SHAPES: dict[str, dict[str, Any]] = {
    "5": {
        "architectures": ["MistralForCausalLM"], "model_type": "mistral",
        "num_hidden_layers": 40, "hidden_size": 5120, "intermediate_size": 32768,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "vocab_size": 131072, "max_position_embeddings": 131072, "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
    },
}  # fmt: skip
# The row says 4 ranks, but its weights are those of all 8 cards of the node with whole experts (the
# only way to cut this checkpoint by 8). The KV cache is the same: one KV head per rank.
PARALLEL = {"20": Parallel(tensor=8, is_expert=True)}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. GiB are as printed there; None: not stated."""

    fields: dict[str, str]

    def __getitem__(self, name: str) -> str:
        return self.fields[name]

    def number(self, name: str) -> float | None:
        return float(self.fields[name]) if self.fields[name] else None

    def n_bytes(self, name: str) -> int | None:
        number = self.number(name)
        return None if number is None else round(number * GIB)

    @property
    def is_refusal(self) -> bool:
        return self.fields["measured_on"] == "vLLM ValueError"


@dataclass(frozen=True, slots=True)
class Launch:
    """A row as our planner's input. `is_card_known`, `is_utilization_known`: the row states it."""

    row: Row
    geometry: Geometry
    cards: tuple[Gpu, ...]
    layout: Layout
    is_card_known: bool
    is_utilization_known: bool


def read_rows(folder: Path) -> tuple[Row, ...]:
    """All rows of the table in a folder of model facts."""
    with (folder / "memory_ground_truth.csv").open(newline="") as file:
        return tuple(Row(dict(fields)) for fields in csv.DictReader(file))


def launch_of(folder: Path, row: Row) -> Launch | None:
    """None where no config.json of the model is known."""
    config = SHAPES.get(row["id"])
    if row["config_file"]:
        config = json.loads((folder / "configs" / row["config_file"]).read_text())
    if config is None:
        return None
    return _launch(row, _geometry(row, config))


def _geometry(row: Row, config: dict[str, Any]) -> Geometry:
    wanted = QUANTIZATIONS.get(row["quant"])
    own = (config.get("quantization_config") or {}).get("quant_method")
    if wanted is None or own == wanted:
        return read_geometry(config)
    # Somebody else's quantisation of the same model.
    return read_geometry({**config, "quantization_config": None}, quantization=wanted)


def _launch(row: Row, geometry: Geometry) -> Launch:
    version = version_of(row)
    parallel = PARALLEL.get(row["id"]) or Parallel(
        tensor=int(row["tp"] or 1),
        pipeline=int(row["pp"] or 1),
        decode_context=int(_flag(row, "decode-context-parallel-size") or 1),
    )
    cards = tuple(_cards(row, parallel.tensor * parallel.pipeline * parallel.data))
    ruling = rules(version)
    context = int(row["max_model_len"] or geometry.max_position or 4096)
    world = parallel.tensor * parallel.pipeline
    tokens, sequences = ruling.batch_limits(cards[0].total_bytes, cards[0].name, "cuda", world)
    kv_dtype = "fp8" if row["kv_cache_dtype"].startswith("fp8") else "auto"
    block = _flag(row, "block-size") or ruling.block_tokens(geometry, "cuda", kv_dtype)
    layout = Layout(
        parallel=parallel,
        context_tokens=context,
        max_num_batched_tokens=int(_flag(row, "max-num-batched-tokens") or tokens),
        max_num_seqs=int(_flag(row, "max-num-seqs") or sequences),
        kv_dtype=kv_dtype,
        block_tokens=int(block),
        gpu_memory_utilization=row.number("gpu_memory_utilization") or ruling.default_utilization,
        version=version,
    )
    is_card_known = bool(row["gpu_total_gib"]) or row["gpu"] in CARDS
    return Launch(row, geometry, cards, layout, is_card_known, bool(row["gpu_memory_utilization"]))


def version_of(row: Row) -> str:
    """The engine's version in a form that the planner knows; 0.10 where none is stated."""
    if row["vllm_version"] in VERSIONS:
        return VERSIONS[row["vllm_version"]]
    match = re.search(r"\d+\.\d+", row["vllm_version"])
    return match[0] if match else VERSIONS[""]


def _cards(row: Row, count: int) -> Iterator[Gpu]:
    name = CARDS.get(row["gpu"], "H100")
    (first, *_) = imagine(known_gpus(name)[0].name).gpus
    total = row.n_bytes("gpu_total_gib") or first.total_bytes
    for index in range(count):
        yield replace(first, index=index, total_bytes=total, free_bytes=total)


def _flag(row: Row, name: str) -> str | None:
    match = re.search(rf"--{name}[= ](\d+)", row["other_flags"])
    return match[1] if match else None
