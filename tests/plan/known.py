"""Published facts to plan with: config.json files of well-known models, cut to what matters."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from serve.catalog import ModelSpec, load_catalog
from serve.geometry import read_geometry
from serve.hardware import Cpu, Gpu, Machine
from serve.plan import Subject
from serve.shape import Geometry
from serve.sources import DirSource

GIB = 2**30
# A folder of model facts that may lie beside a checkout; tests that need it are skipped without.
FACTS = Path(__file__).parents[3] / "shared" / "models"

LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16",
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "hidden_size": 4096, "intermediate_size": 14336, "vocab_size": 128256,
    "max_position_embeddings": 131072,
}  # fmt: skip
QWEN3_8B: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"], "dtype": "bfloat16",
    "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "hidden_size": 4096, "intermediate_size": 12288, "vocab_size": 151936,
    "max_position_embeddings": 40960,
}  # fmt: skip
QWEN25_7B: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"], "dtype": "bfloat16",
    "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "hidden_size": 3584, "intermediate_size": 18944, "vocab_size": 152064,
    "max_position_embeddings": 32768, "sliding_window": 131072, "use_sliding_window": False,
}  # fmt: skip
QWEN3_235B_FP8: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"], "dtype": "bfloat16",
    "num_hidden_layers": 94, "num_attention_heads": 64, "num_key_value_heads": 4, "head_dim": 128,
    "hidden_size": 4096, "intermediate_size": 12288, "moe_intermediate_size": 1536,
    "num_experts": 128, "num_experts_per_tok": 8, "decoder_sparse_step": 1, "mlp_only_layers": [],
    "vocab_size": 151936, "max_position_embeddings": 40960,
    "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}  # fmt: skip
CHATGLM_9B: dict[str, Any] = {
    "architectures": ["ChatGLMModel"], "dtype": "bfloat16",
    "num_layers": 40, "num_attention_heads": 32, "multi_query_group_num": 2, "kv_channels": 128,
    "hidden_size": 4096, "ffn_hidden_size": 13696, "padded_vocab_size": 151552,
    "seq_length": 131072,
}  # fmt: skip
DEEPSEEK_V2_LITE: dict[str, Any] = {
    "architectures": ["DeepseekV2ForCausalLM"], "dtype": "bfloat16",
    "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16,
    "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408,
    "n_routed_experts": 64, "num_experts_per_tok": 6, "n_shared_experts": 2,
    "first_k_dense_replace": 1, "moe_layer_freq": 1, "q_lora_rank": None,
    "tie_word_embeddings": False, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128, "v_head_dim": 128, "vocab_size": 102400,
    "max_position_embeddings": 163840,
}  # fmt: skip
SMOLLM2: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16",
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    "hidden_size": 576, "intermediate_size": 1536, "vocab_size": 49152,
    "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip


def shape(config: Mapping[str, Any]) -> Geometry:
    """The geometry of a config.json; the same one for the same text."""
    return _shape(json.dumps(config))


@cache
def _shape(text: str) -> Geometry:
    return read_geometry(json.loads(text))


def subject(context_tokens: int, weights_gib: float, **changes: Any) -> Subject:
    starter = load_catalog().find("starter")
    facts = {"name": "some-model", "source": DirSource(Path("/weights")), **changes}
    spec = ModelSpec(
        family=starter.family, license=starter.license, architecture=starter.architecture,
        parameters="8B", context_tokens=context_tokens, **facts,
    )  # fmt: skip
    return Subject(spec, Path("/weights"), "00", int(weights_gib * GIB))


def cpu(free_gib: float = 20, nodes: tuple[tuple[int, ...], ...] = ((0, 1),), **more: Any) -> Cpu:
    cores = tuple(core for node in nodes for core in node)
    free = int(free_gib * GIB)
    return Cpu("a CPU", cores, nodes, frozenset({"avx512f"}), 24 * GIB, free, **more)


def card(index: int = 0, total_gib: float = 79.18, used_gib: float = 0, **more: Any) -> Gpu:
    total, free = int(total_gib * GIB), int((total_gib - used_gib) * GIB)
    facts = {"name": "NVIDIA H100 80GB HBM3", "compute_capability": (9, 0), **more}
    return Gpu(index=index, uuid=f"GPU-{index}", total_bytes=total, free_bytes=free, **facts)


def with_gpus(*gpus: Gpu) -> Machine:
    return Machine(cpu(), gpus, "580.65.06")
