"""Tiny models of every kind of attention that vLLM runs on a CPU, and options to start them with.

The shapes are the smallest that its kernels take: head sizes of 32, MLA of 512 + 64 only.
"""

from typing import Any

Config = dict[str, Any]

COMMON: Config = {
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "vocab_size": 1024,
    "torch_dtype": "bfloat16", "hidden_act": "silu", "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
MOE: Config = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "norm_topk_prob": True,
    "decoder_sparse_step": 1, "mlp_only_layers": [], "shared_expert_intermediate_size": 64,
}  # fmt: skip
ROUTED: Config = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
    "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
    "routed_scaling_factor": 1.0, "norm_topk_prob": True, "moe_layer_freq": 1,
}  # fmt: skip
MLA: Config = {
    "num_key_value_heads": 4, "kv_lora_rank": 512, "q_lora_rank": None, "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 32, "v_head_dim": 32,
}  # fmt: skip
LINEAR: Config = {
    "head_dim": 32, "num_hidden_layers": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4,
    "full_attention_interval": 4, "partial_rotary_factor": 0.25,
    "layer_types": ["linear_attention"] * 3 + ["full_attention"],
}  # fmt: skip


def shape(architecture: str, model_type: str, **differences: Any) -> Config:
    return COMMON | {"architectures": [architecture], "model_type": model_type} | differences


def gpt_oss(kinds: str) -> Config:
    """Of layers that slide ("s") or not ("f")."""
    return shape(
        "GptOssForCausalLM", "gpt_oss", head_dim=32, num_local_experts=4, num_experts_per_tok=2,
        sliding_window=128, intermediate_size=128, rope_theta=150000, swiglu_limit=7.0,
        attention_bias=True, num_hidden_layers=len(kinds), layer_types=_kinds(kinds),
    )  # fmt: skip


def _kinds(kinds: str) -> list[str]:
    return ["sliding_attention" if kind == "s" else "full_attention" for kind in kinds]


LLAMA = shape("LlamaForCausalLM", "llama")
QWEN2 = shape(
    "Qwen2ForCausalLM", "qwen2",
    use_sliding_window=False, sliding_window=1024, max_window_layers=2,
)  # fmt: skip
QWEN3 = shape("Qwen3ForCausalLM", "qwen3", head_dim=32)
GLM = shape("GlmForCausalLM", "glm", head_dim=32, partial_rotary_factor=0.5, attention_bias=True)
GLM_MOE = shape(
    "Glm4MoeForCausalLM", "glm4_moe", head_dim=32, use_qk_norm=False, partial_rotary_factor=0.5,
    attention_bias=True, **ROUTED,
)  # fmt: skip
DEEPSEEK_V2 = shape(
    "DeepseekV2ForCausalLM", "deepseek_v2", **ROUTED, **MLA, topk_method="greedy",
    scoring_func="softmax",
)  # fmt: skip
DEEPSEEK_V3 = shape(
    "DeepseekV3ForCausalLM", "deepseek_v3", **ROUTED, **MLA | {"q_lora_rank": 64},
    topk_method="noaux_tc", scoring_func="sigmoid", num_nextn_predict_layers=1,
)  # fmt: skip
GEMMA3 = shape(
    "Gemma3ForCausalLM", "gemma3_text", head_dim=32, sliding_window=512, query_pre_attn_scalar=32,
    hidden_activation="gelu_pytorch_tanh", attn_logit_softcapping=None, rope_theta=1e6,
    final_logit_softcapping=None, rope_local_base_freq=10000.0, num_hidden_layers=7,
    layer_types=_kinds("sssssfs"),
)  # fmt: skip
MISTRAL = shape("MistralForCausalLM", "mistral", head_dim=32, sliding_window=1024)
QWEN3_NEXT = shape("Qwen3NextForCausalLM", "qwen3_next", **LINEAR, **MOE)
# name → (config.json, options that differ from OPTIONS)
OPTIONS: Config = {
    "kv_cache_memory_bytes": 50_000_000, "max_num_batched_tokens": 2048, "max_num_seqs": 8,
    "max_model_len": 4096,
}  # fmt: skip
CASES: dict[str, tuple[Config, Config]] = {
    "llama": (LLAMA, {}),
    "llama-of-odd-length": (LLAMA, {"max_model_len": 3001}),
    "llama-of-small-blocks": (LLAMA, {"block_size": 32, "kv_cache_memory_bytes": 12_345_678}),
    "qwen2": (QWEN2, {}),
    "qwen3": (QWEN3, {}),
    "qwen3-fp8-kv": (QWEN3, {"kv_cache_dtype": "fp8"}),
    "qwen3-float32": (QWEN3, {"dtype": "float32"}),
    "qwen3-moe": (shape("Qwen3MoeForCausalLM", "qwen3_moe", head_dim=32, **MOE), {}),
    "glm-4": (GLM, {}),
    "glm-4.5": (GLM_MOE, {}),
    "deepseek-v2": (DEEPSEEK_V2, {}),
    "deepseek-v3": (DEEPSEEK_V3, {}),
    "gpt-oss": (gpt_oss("sf"), {}),
    "gpt-oss-padded": (gpt_oss("sfsfs"), {}),
    "gpt-oss-of-large-groups": (gpt_oss("sfsfsfsfs"), {"max_num_batched_tokens": 512}),
    "gemma-3": (GEMMA3, {"max_num_batched_tokens": 1024}),
    "mistral": (MISTRAL, {"max_num_batched_tokens": 256}),
    "qwen3-next": (QWEN3_NEXT, {}),
}
ON_TWO_RANKS: dict[str, tuple[Config, Config]] = {
    "llama": (LLAMA, {}),
    "qwen3-of-one-kv-head": (QWEN3 | {"num_key_value_heads": 1}, {}),
    "deepseek-v2": (DEEPSEEK_V2, {}),
    "gpt-oss": (gpt_oss("sf"), {}),
}
# Too little for one request, which is long, so that what it needs shows in hundredths of a GiB.
LONG = 2**20
LONG_OPTIONS: Config = {"max_model_len": LONG, "kv_cache_memory_bytes": 100_000_000}
REFUSED: dict[str, Config] = {
    "llama": LLAMA | {"max_position_embeddings": LONG},
    "deepseek-v2": DEEPSEEK_V2 | {"max_position_embeddings": LONG},
    "gpt-oss": gpt_oss("sfsfs") | {"max_position_embeddings": LONG},
    "qwen3-next": QWEN3_NEXT | {"max_position_embeddings": LONG},
}
