"""Models whose memory no rule here describes: refused with the reason, never guessed.

Source: the classes of vLLM 0.32 (model_executor/models/, models/) and what they ask of its cache.
"""

from collections.abc import Mapping

from serve.geometry.fields import Fields, refused

_STATES = "its layers keep states that are not counted here"
_SHARED = "its layers share the keys and values of others"
_UNEQUAL = "its layers differ in heads or widths"

# Architecture, or how its name begins → why.
_BY_NAME: Mapping[str, str] = {
    "DeepseekV4": "its attention keeps compressed tokens",
    "MiniMaxM3": "its sparse attention has an index beside grouped heads",
    "MiniMaxText01": _STATES,
    "MiniMaxM1": _STATES,
    "KimiK3": "Kimi's delta attention lies beside latent attention",
    "KimiLinear": "Kimi's delta attention lies beside latent attention",
    "Mamba": _STATES,
    "FalconMamba": _STATES,
    "FalconH1": _STATES,
    "Jamba": _STATES,
    "Zamba2": _STATES,
    "Bamba": _STATES,
    "NemotronH": _STATES,
    "GraniteMoeHybrid": _STATES,
    "Plamo2": _STATES,
    "Lfm2": _STATES,
    "OlmoHybrid": _STATES,
    "BailingMoeV2_5": _STATES,
    "BailingMoeV3": _STATES,
    "Qwen4": _STATES,
    "Glm5Next": _UNEQUAL,
    "HYV4": _UNEQUAL,
    "Dots3": _UNEQUAL,
    "Inkling": _UNEQUAL,
    "Gemma3n": _SHARED,
    "Gemma4": _SHARED,
    "Llama4": "its attention is cut into chunks",
    "DeciLM": _UNEQUAL,
    "Step3": _UNEQUAL,
    "MiMoV2": _UNEQUAL,
    "LongcatFlash": "each layer has two attentions",
}

# A field that is there → why. What is unusual shows itself under new names too.
_BY_FIELD: Mapping[str, str] = {
    "compress_ratios": "attention that keeps compressed tokens",
    "sparse_attention_config": "sparse attention with an index of its own",
    "linear_attn_config": "linear attention of a kind that is not counted here",
    "attention_chunk_size": "attention in chunks",
    "block_configs": "layers that differ from each other",
    "hybrid_override_pattern": "layers with states",
    "layers_block_type": "layers with states",
    "state_size": "layers with states",
    "mamba_d_state": "layers with states",
    "ssm_state_size": "layers with states",
    "conv_L_cache": "layers with states",
}


def refuse_unplannable(architecture: str, text: Fields, whole: Fields) -> None:
    """Raises BadFile("config.json", "…: cannot be planned: why") rather than guess."""
    for start, reason in _BY_NAME.items():
        if architecture.startswith(start):
            raise refused("architectures", f"cannot be planned: {architecture}: {reason}")
    for name, reason in _BY_FIELD.items():
        if text.has(name):
            raise refused(name, f"cannot be planned: {reason}")
    if text.optional("num_kv_shared_layers", least=0):
        raise refused("num_kv_shared_layers", f"cannot be planned: {_SHARED}")
    # MiniMax: 1 is softmax attention, 0 is lightning attention, which keeps a state.
    if 0 in (text.counts("attn_type_list") or ()):
        raise refused("attn_type_list", f"cannot be planned: {_STATES}")
    if text.flag("is_encoder_decoder", whole.flag("is_encoder_decoder", False)):
        raise refused("is_encoder_decoder", "cannot be planned: a model with an encoder")
