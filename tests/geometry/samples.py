"""config.json files to read: small whole ones of each kind of attention, and the published ones of
a folder that may lie beside a checkout."""

import json
from pathlib import Path
from typing import Any

from tests.plan.known import FACTS

Config = dict[str, Any]
FOLDER = FACTS / "configs"
PUBLISHED: tuple[Path, ...] = tuple(sorted(FOLDER.glob("*.json")))
NO_FACTS = "the folder of model facts is not there"


def published(name: str) -> Config:
    """One published file, by its name in the folder without `.json`."""
    content: Config = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return content


LLAMA: Config = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 4,
    "hidden_size": 256, "num_attention_heads": 8, "num_key_value_heads": 2,
    "intermediate_size": 512, "vocab_size": 1000, "max_position_embeddings": 8192,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
QWEN3 = LLAMA | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 64}
MIXTURE = QWEN3 | {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "num_experts": 16,
    "num_experts_per_tok": 4, "moe_intermediate_size": 128, "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}  # fmt: skip
DEEPSEEK = LLAMA | {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "kv_lora_rank": 64,
    "q_lora_rank": 96, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32, "v_head_dim": 32,
    "n_routed_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 128,
    "n_shared_experts": 1, "first_k_dense_replace": 1, "moe_layer_freq": 1,
    "num_nextn_predict_layers": 1,
}  # fmt: skip
SPARSE = DEEPSEEK | {
    "architectures": ["GlmMoeDsaForCausalLM"], "model_type": "glm_moe_dsa", "index_topk": 64,
    "index_n_heads": 4, "index_head_dim": 32,
}  # fmt: skip
GPT_OSS = LLAMA | {
    "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "head_dim": 64,
    "num_local_experts": 16, "num_experts_per_tok": 4, "sliding_window": 128,
}  # fmt: skip
HYBRID = MIXTURE | {
    "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "head_dim": 256,
    "full_attention_interval": 4, "linear_num_key_heads": 4, "linear_num_value_heads": 8,
    "linear_key_head_dim": 32, "linear_value_head_dim": 32, "linear_conv_kernel_dim": 4,
    "shared_expert_intermediate_size": 128,
}  # fmt: skip
CHATGLM: Config = {
    "architectures": ["ChatGLMModel"], "model_type": "chatglm", "num_layers": 4,
    "hidden_size": 256, "num_attention_heads": 8, "multi_query_group_num": 2, "kv_channels": 32,
    "ffn_hidden_size": 512, "padded_vocab_size": 1024, "vocab_size": 1000, "seq_length": 8192,
    "torch_dtype": "bfloat16", "tie_word_embeddings": False,
}  # fmt: skip
# A model that sees: the language model lies within.
NESTED: Config = {
    "architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3",
    "tie_word_embeddings": False, "dtype": "bfloat16",
    "vision_config": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
    "text_config": {
        "model_type": "mistral", "num_hidden_layers": 4, "hidden_size": 256, "vocab_size": 1000,
        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32,
        "intermediate_size": 512, "max_position_embeddings": 8192,
    },
}  # fmt: skip

ALL: dict[str, Config] = {
    "llama": LLAMA, "qwen3": QWEN3, "mixture": MIXTURE, "deepseek": DEEPSEEK, "sparse": SPARSE,
    "gpt-oss": GPT_OSS, "hybrid": HYBRID, "chatglm": CHATGLM, "nested": NESTED,
}  # fmt: skip
