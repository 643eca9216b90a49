"""Builds tiny random models of all kinds, a folder each: `make_tiny.py TOKENIZER_DIR TARGET`.

Run with a runtime's Python. The shapes are the smallest that vLLM's CPU kernels take: two layers,
head sizes of 32, MLA with the one head size (512 + 64) that its kernels know.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

COMMON: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "vocab_size": 49152,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip
MOE: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
ROUTED: dict[str, Any] = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
    "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
}  # fmt: skip
MLA: dict[str, Any] = {
    "num_key_value_heads": 4, "kv_lora_rank": 512, "q_lora_rank": None, "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 32, "v_head_dim": 32,
}  # fmt: skip
# architecture → (config class, what differs from COMMON)
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "LlamaForCausalLM": ("LlamaConfig", {}),
    "Qwen2ForCausalLM": ("Qwen2Config", {}),
    "Qwen2MoeForCausalLM": (
        "Qwen2MoeConfig",
        MOE | {"shared_expert_intermediate_size": 64, "decoder_sparse_step": 1},
    ),
    "Qwen3ForCausalLM": ("Qwen3Config", {"head_dim": 32}),
    "Qwen3MoeForCausalLM": ("Qwen3MoeConfig", MOE | {"head_dim": 32, "norm_topk_prob": True}),
    "GlmForCausalLM": ("GlmConfig", {"head_dim": 32}),
    "Glm4ForCausalLM": ("Glm4Config", {"head_dim": 32}),
    "Glm4MoeForCausalLM": ("Glm4MoeConfig", ROUTED | {"head_dim": 32, "use_qk_norm": False}),
    "Glm4MoeLiteForCausalLM": (
        "Glm4MoeLiteConfig",
        ROUTED | MLA | {
            "q_lora_rank": 64, "norm_topk_prob": True, "routed_scaling_factor": 1.0,
            "mlp_layer_types": ["dense", "sparse"],
        },
    ),
    "GptOssForCausalLM": (
        "GptOssConfig",
        {
            # Its prompts are written by OpenAI's own code, in token ids of OpenAI's own.
            "vocab_size": 201088, "head_dim": 32, "num_local_experts": 4,
            "num_experts_per_tok": 2, "sliding_window": 128, "intermediate_size": 128,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "DeepseekV2ForCausalLM": (
        "DeepseekV2Config",
        ROUTED | MLA | {"topk_method": "greedy", "routed_scaling_factor": 1.0},
    ),
    "DeepseekV3ForCausalLM": (
        "DeepseekV3Config",
        ROUTED | MLA | {
            "q_lora_rank": 64, "topk_method": "noaux_tc", "scoring_func": "sigmoid",
            "norm_topk_prob": True, "routed_scaling_factor": 1.0,
        },
    ),
}  # fmt: skip


def build(architecture: str, tokenizer: Path, target: Path) -> None:
    config_class, differences = SHAPES[architecture]
    torch.manual_seed(0)
    config = getattr(transformers, config_class)(**COMMON | differences)
    model = getattr(transformers, architecture)(config).to(torch.bfloat16)
    model.save_pretrained(target)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tokenizer / name, target / name)


if __name__ == "__main__":
    for name in SHAPES:
        build(name, Path(sys.argv[1]), Path(sys.argv[2]) / name)
