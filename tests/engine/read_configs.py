"""How a runtime's vLLM reads config.json files, as JSON on stdout: `read_configs.py < FOLDERS`.

FOLDERS: {name: folder}. The answer has for each what vLLM makes of it before any weight is loaded,
or why it does not take it. Python of repositories is not allowed.
"""

import json
import sys
from typing import Any

from vllm.config.model import _get_and_verify_max_len, _resolve_auto_dtype
from vllm.transformers_utils.config import get_config, get_hf_text_config
from vllm.transformers_utils.model_arch_config_convertor import (
    MODEL_ARCH_CONFIG_CONVERTORS,
    ModelArchConfigConvertorBase,
)


def read(folder: str) -> dict[str, Any]:
    whole = get_config(folder, trust_remote_code=False)
    text = get_hf_text_config(whole)
    kind = MODEL_ARCH_CONFIG_CONVERTORS.get(whole.model_type, ModelArchConfigConvertorBase)
    found = kind(whole, text).convert()
    window = getattr(text, "sliding_window", None)
    named = kind.get_torch_dtype(whole, folder, None, "hf")
    return {
        "layers": found.total_num_hidden_layers,
        "heads": found.total_num_attention_heads,
        "kv_heads": found.total_num_kv_heads,
        "head_dim": found.head_size,
        "hidden": found.hidden_size,
        "vocab": found.vocab_size,
        "experts": found.num_experts,
        "is_latent": found.is_deepseek_mla,
        "max_position": _get_and_verify_max_len(text, found, None, None, False, window),
        "dtype": str(_resolve_auto_dtype(whole.model_type, named, is_pooling_model=False)),
        "is_tied": getattr(text, "tie_word_embeddings", None),
        "layer_types": getattr(text, "layer_types", None),
    }


def answer(folder: str) -> dict[str, Any]:
    try:
        return read(folder)
    except (ValueError, OSError, NotImplementedError) as error:
        return {"problem": str(error)}


print(f"\n{json.dumps({name: answer(folder) for name, folder in json.load(sys.stdin).items()})}")
