"""What an architecture adds to its config.json: what it assumes where the file is silent, and what
its fields mean. One table; an architecture that is not in it is read by the commonest meaning.

Sources: the classes of transformers 5.19 (models/*/configuration_*.py) for what is assumed, those
of vLLM 0.32 (model_executor/models/*.py) for which layers are of which kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from serve.geometry.fields import Fields

# Which layers hold experts. "all"; "step": `decoder_sparse_step` and `mlp_only_layers`; "first":
# from `first_k_dense_replace` on, every `moe_layer_freq`-th.
Spread = Literal["none", "all", "step", "first"]


@dataclass(frozen=True, slots=True)
class Family:
    """How to read one architecture.

    `is_tied`: without `tie_word_embeddings`. `head_dim`: what transformers takes where the file
    names none (None: hidden / heads). `rotary_share`: of a head that is rotated, likewise.
    `window_period`: every n-th layer sees all tokens, the others `sliding_window` (without
    `layer_types`). `linear_period`: every n-th layer has softmax attention, the others have none.
    `has_window_switch`: `sliding_window` counts only with `use_sliding_window`.
    `expert_width`: the field with the width of one expert. `defaults`: other numbers that the
    published files of this architecture leave out.
    """

    is_tied: bool = False
    head_dim: int | None = None
    rotary_share: float = 1.0
    window_period: int | None = None
    linear_period: int | None = None
    has_window_switch: bool = False
    spread: Spread = "none"
    expert_width: str = "moe_intermediate_size"
    is_latent: bool = False
    has_gate: bool = False
    overflows_float16: bool = False  # vLLM 0.32 config/model.py refuses it
    is_length_scaled: bool = False  # the file names the length that its rope scaling leads to
    defaults: Mapping[str, int] = field(default_factory=dict)
    is_known: bool = True


_QWEN3_NEXT = Family(head_dim=256, rotary_share=0.25, linear_period=4, has_gate=True, spread="step")
_DEEPSEEK = Family(is_latent=True, spread="first")
_GLM4_MOE = Family(head_dim=128, rotary_share=0.5, spread="first")
# The published files of Gemma 3 4B and 12B leave out what equals the class's own numbers.
_GEMMA3_DEFAULTS = {
    "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 262208,
    "max_position_embeddings": 131072,
}  # fmt: skip

# By `model_type`.
_FAMILIES: Mapping[str, Family] = {
    "llama": Family(),
    "qwen2": Family(has_window_switch=True),
    "qwen2_moe": Family(has_window_switch=True, spread="step"),
    "qwen3": Family(head_dim=128, has_window_switch=True),
    "qwen3_moe": Family(has_window_switch=True, spread="step"),
    "qwen3_next": _QWEN3_NEXT,
    "qwen3_5_text": Family(head_dim=256, rotary_share=0.25, linear_period=4, has_gate=True),
    "qwen3_5_moe_text": Family(
        head_dim=256, rotary_share=0.25, linear_period=4, has_gate=True, spread="all"
    ),
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "deepseek_v32": _DEEPSEEK,
    "kimi_k2": _DEEPSEEK,
    "glm_moe_dsa": _DEEPSEEK,
    "glm4_moe_lite": _DEEPSEEK,
    "glm": Family(head_dim=128, rotary_share=0.5),
    "glm4": Family(head_dim=128, rotary_share=0.5, overflows_float16=True),
    "glm4_moe": _GLM4_MOE,
    "chatglm": Family(rotary_share=0.5),
    "gpt_oss": Family(
        head_dim=64, window_period=2, spread="all", expert_width="intermediate_size"
    ),
    "minimax_m2": Family(head_dim=128, spread="all", expert_width="intermediate_size"),
    "mistral": Family(),
    "ministral3": Family(head_dim=128),
    "mixtral": Family(spread="all", expert_width="intermediate_size"),
    "phi3": Family(),
    "phimoe": Family(spread="all", expert_width="intermediate_size"),
    "gemma": Family(is_tied=True, head_dim=256),
    "gemma2": Family(is_tied=True, head_dim=256, window_period=2, overflows_float16=True),
    "gemma3_text": Family(
        is_tied=True, head_dim=256, window_period=6, overflows_float16=True,
        is_length_scaled=True, defaults=_GEMMA3_DEFAULTS,
    ),
    "cohere": Family(is_tied=True),
    "cohere2": Family(is_tied=True, window_period=4),
    "starcoder2": Family(is_tied=True),
    "olmo2": Family(),
    "olmo3": Family(window_period=4),
    "olmoe": Family(spread="all", expert_width="intermediate_size"),
    "granite": Family(),
    "exaone4": Family(window_period=4),
    "seed_oss": Family(head_dim=128),
    "ernie4_5": Family(is_tied=True, head_dim=128),
    "smollm3": Family(is_tied=True, has_window_switch=True),
    "internlm2": Family(),
    "internlm3": Family(),
    "mimo": Family(has_window_switch=True),
}  # fmt: skip

# `architectures` → family, where the model type does not say it: files of other libraries, models
# that see, and language models whose file is flat although they see.
_ARCHITECTURES: Mapping[str, str] = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen2VLForConditionalGeneration": "qwen2",
    "Qwen2_5_VLForConditionalGeneration": "qwen2",
    "Qwen2MoeForCausalLM": "qwen2_moe",
    "Qwen3ForCausalLM": "qwen3",
    "Qwen3VLForConditionalGeneration": "qwen3",
    "Qwen3MoeForCausalLM": "qwen3_moe",
    "Qwen3VLMoeForConditionalGeneration": "qwen3_moe",
    "Qwen3NextForCausalLM": "qwen3_next",
    "Qwen3_5ForCausalLM": "qwen3_5_text",
    "Qwen3_5ForConditionalGeneration": "qwen3_5_text",
    "Qwen3_5MoeForCausalLM": "qwen3_5_moe_text",
    "Qwen3_5MoeForConditionalGeneration": "qwen3_5_moe_text",
    "DeepseekV2ForCausalLM": "deepseek_v2",
    "DeepseekV3ForCausalLM": "deepseek_v3",
    "DeepseekV32ForCausalLM": "deepseek_v32",
    "KimiK25ForConditionalGeneration": "kimi_k2",
    "GlmMoeDsaForCausalLM": "glm_moe_dsa",
    "Glm4MoeLiteForCausalLM": "glm4_moe_lite",
    "GlmForCausalLM": "glm",
    "Glm4ForCausalLM": "glm4",
    "Glm4vForConditionalGeneration": "glm4",
    "Glm4MoeForCausalLM": "glm4_moe",
    "Glm4vMoeForConditionalGeneration": "glm4_moe",
    "ChatGLMModel": "chatglm",
    "ChatGLMForConditionalGeneration": "chatglm",
    "GptOssForCausalLM": "gpt_oss",
    "MiniMaxM2ForCausalLM": "minimax_m2",
    "MistralForCausalLM": "mistral",
    "Ministral3ForCausalLM": "ministral3",
    "MixtralForCausalLM": "mixtral",
    "Phi3ForCausalLM": "phi3",
    "PhiMoEForCausalLM": "phimoe",
    "GemmaForCausalLM": "gemma",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3_text",
    "Gemma3ForConditionalGeneration": "gemma3_text",
    "CohereForCausalLM": "cohere",
    "Cohere2ForCausalLM": "cohere2",
    "Starcoder2ForCausalLM": "starcoder2",
    "Olmo2ForCausalLM": "olmo2",
    "Olmo3ForCausalLM": "olmo3",
    "OlmoeForCausalLM": "olmoe",
    "GraniteForCausalLM": "granite",
    "Exaone4ForCausalLM": "exaone4",
    "SeedOssForCausalLM": "seed_oss",
    "Ernie4_5ForCausalLM": "ernie4_5",
    "SmolLM3ForCausalLM": "smollm3",
    "InternLM2ForCausalLM": "internlm2",
    "InternLM3ForCausalLM": "internlm3",
    "MiMoForCausalLM": "mimo",
}

UNNAMED = "unnamed"


def architecture_of(text: Fields, whole: Fields) -> str:
    """The first of `architectures`, of the whole model; "unnamed" where there is none."""
    names = whole.words("architectures") or text.words("architectures")
    return names[0] if names else UNNAMED


def family_of(architecture: str, text: Fields) -> Family:
    """How to read this architecture; a family with `is_known` False where we do not know it."""
    name = _ARCHITECTURES.get(architecture) or text.word("model_type")
    return _FAMILIES.get(name or "") or _unknown(text)


def count_of(name: str, text: Fields, family: Family) -> int:
    """A number that the file names, or that this family's files leave out. Raises BadFile."""
    default = family.defaults.get(name)
    return text.count(name) if default is None else text.optional(name) or default


def _unknown(text: Fields) -> Family:
    """By the commonest meaning of the fields that are there."""
    spread: Spread = "all" if text.has("num_local_experts") else "none"
    if text.has("num_experts") or text.has("n_routed_experts"):
        spread = "first" if text.has("first_k_dense_replace") else "step"
    width = "moe_intermediate_size" if text.has("moe_intermediate_size") else "intermediate_size"
    is_latent = text.has("kv_lora_rank")
    return Family(spread=spread, expert_width=width, is_latent=is_latent, is_known=False)
