"""What an architecture's layers have besides their projections: biases, norms, router extras.

Source: vLLM 0.32 model_executor/models/, one file per architecture.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

# A fact of the architecture, or the config field that says it (absent: False).
Flag = bool | str
QkNorm = Literal["none", "head", "full"]
End = Literal["embedding", "output", "norm"]


@dataclass(frozen=True, slots=True)
class Traits:
    """`norms`: RMS norms of the hidden width per layer. `qk_norm`: of each head's width, or of all.

    `correction`: the router's float32 bias for choosing; `is_router_wide`: its weights are float32.
    `is_rope_wide`: its table of positions is float32; vLLM runs architectures without one through
    transformers. `everywhere`: what every pipeline stage has, needed or not. `mlp`: how the
    checkpoint calls the feed-forward block.
    """

    qkv_bias: Flag = "attention_bias"
    output_bias: Flag = False
    mlp_bias: Flag = False
    norms: int = 2
    qk_norm: QkNorm = "none"
    qk_norm_if: Flag = True
    correction: Flag = False
    is_router_wide: bool = False
    router_bias: bool = False
    expert_bias: bool = False
    has_shared_gate: bool = False
    has_sinks: bool = False
    is_rope_wide: bool = False
    has_rope_table: bool = True
    everywhere: frozenset[End] = frozenset()
    mlp: str = "mlp"


_ALL: frozenset[End] = frozenset({"embedding", "output", "norm"})
_TABLES: frozenset[End] = frozenset({"embedding", "output"})
_FIRST: frozenset[End] = frozenset({"embedding"})
_LLAMA = Traits(output_bias="attention_bias", mlp_bias="mlp_bias")
_QWEN2 = Traits(qkv_bias=True)
_QWEN3 = Traits(qk_norm="head")
_DEEPSEEK = Traits(qkv_bias=False, correction="topk_method")
_GLM4_MOE = Traits(qk_norm="head", qk_norm_if="use_qk_norm", correction=True, is_router_wide=True)
_QWEN3_NEXT = Traits(qk_norm="head", has_shared_gate=True, everywhere=_TABLES)
_QWEN3_5 = Traits(qk_norm="head", everywhere=_FIRST)
_QWEN3_5_MOE = Traits(qk_norm="head", has_shared_gate=True, everywhere=_FIRST)
_QWEN3_MOE = Traits(qk_norm="head", everywhere=_ALL)
_QWEN2_MOE = Traits(qkv_bias=True, has_shared_gate=True, everywhere=_ALL)
_CHATGLM = Traits(
    qkv_bias="add_qkv_bias", output_bias="add_bias_linear", mlp_bias="add_bias_linear",
    everywhere=_ALL,
)  # fmt: skip
_MINIMAX_M2 = Traits(
    qk_norm="full", correction="use_routing_bias", is_router_wide=True, mlp="block_sparse_moe"
)
_GPT_OSS = Traits(
    qkv_bias=True, output_bias=True, router_bias=True, expert_bias=True, has_sinks=True,
    is_rope_wide=True, everywhere=_ALL,
)  # fmt: skip

# Architecture → traits. What is not here is taken for Llama's kin.
TRAITS: dict[str, Traits] = {
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": _LLAMA,
    "MixtralForCausalLM": Traits(mlp="block_sparse_moe", everywhere=_ALL),
    "Phi3ForCausalLM": _LLAMA,
    "Qwen2ForCausalLM": _QWEN2,
    "Qwen2MoeForCausalLM": _QWEN2_MOE,
    "Qwen2VLForConditionalGeneration": _QWEN2,
    "Qwen2_5_VLForConditionalGeneration": _QWEN2,
    "Qwen3ForCausalLM": _QWEN3,
    "Qwen3MoeForCausalLM": _QWEN3_MOE,
    "Qwen3VLForConditionalGeneration": _QWEN3,
    "Qwen3VLMoeForConditionalGeneration": _QWEN3,
    "Qwen3NextForCausalLM": _QWEN3_NEXT,
    "Qwen3_5ForConditionalGeneration": _QWEN3_5,
    "Qwen3_5ForCausalLM": _QWEN3_5,
    "Qwen3_5MoeForConditionalGeneration": _QWEN3_5_MOE,
    "Qwen3_5MoeForCausalLM": _QWEN3_5_MOE,
    "DeepseekV2ForCausalLM": _DEEPSEEK,
    "DeepseekV3ForCausalLM": _DEEPSEEK,
    "DeepseekV32ForCausalLM": _DEEPSEEK,
    "KimiK25ForConditionalGeneration": _DEEPSEEK,
    "Glm4MoeLiteForCausalLM": Traits(qkv_bias=False, correction=True, is_router_wide=True),
    "GlmMoeDsaForCausalLM": _DEEPSEEK,
    "GlmForCausalLM": Traits(has_rope_table=False),
    "Glm4ForCausalLM": Traits(norms=4),
    "Glm4MoeForCausalLM": _GLM4_MOE,
    "ChatGLMModel": _CHATGLM,
    "ChatGLMForConditionalGeneration": _CHATGLM,
    "GptOssForCausalLM": _GPT_OSS,
    "MiniMaxM2ForCausalLM": _MINIMAX_M2,
    "GemmaForCausalLM": Traits(),
    "Gemma2ForCausalLM": Traits(everywhere=_ALL, norms=4),
    "Gemma3ForCausalLM": Traits(everywhere=_ALL, norms=4, qk_norm="head"),
    "Gemma3ForConditionalGeneration": Traits(norms=4, qk_norm="head"),
}

# Where a flag's field holds a word, the word that means yes.
_WORDS = {"topk_method": "noaux_tc"}


def traits_of(architecture: str) -> Traits:
    """The architecture's traits; those of Llama where it is not known."""
    return TRAITS.get(architecture, _LLAMA)


def is_set(flag: Flag, text: Mapping[str, Any]) -> bool:
    """What the flag says for this config (its text part)."""
    if isinstance(flag, bool):
        return flag
    word = _WORDS.get(flag)
    return text.get(flag) == word if word else bool(text.get(flag))
