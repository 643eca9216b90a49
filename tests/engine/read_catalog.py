"""What a runtime's vLLM says of configs and names, as JSON on stdout: `read_catalog.py < QUESTION`.

QUESTION: {"configs": {name: {"folder", "overrides", "context"}}}. The answer has vLLM's
architectures, parsers and tokenizer modes, and for each config the context and rope that it makes
of it, or why not. Python of repositories is not allowed.
"""

import json
import sys
from typing import Any

from vllm.config import ModelConfig
from vllm.model_executor.models import ModelRegistry
from vllm.reasoning import ReasoningParserManager
from vllm.tokenizers.registry import TokenizerRegistry
from vllm.tool_parsers import ToolParserManager


def read(question: dict[str, Any]) -> dict[str, Any]:
    try:
        config = ModelConfig(
            model=question["folder"],
            hf_overrides=question["overrides"],
            max_model_len=question["context"],
            trust_remote_code=False,
            skip_tokenizer_init=True,
        )
    except (ValueError, OSError) as error:
        return {"problem": str(error)}
    rope = getattr(config.hf_text_config, "rope_parameters", None)
    return {"context": config.max_model_len, "rope": rope, "problem": None}


asked = json.load(sys.stdin)
answer = {
    "architectures": sorted(ModelRegistry.get_supported_archs()),
    "tool_parsers": sorted(ToolParserManager.list_registered()),
    "reasoning_parsers": sorted(ReasoningParserManager.list_registered()),
    "tokenizer_modes": sorted(TokenizerRegistry.tokenizers),
    "configs": {name: read(each) for name, each in asked["configs"].items()},
}
print(f"\n{json.dumps(answer)}")
