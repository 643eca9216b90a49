"""`convert.py GGUF_FILE TARGET_DIR`: a GGUF file becomes a folder that vLLM loads.

Run with a runtime's Python. Writes bf16 safetensors, config.json, generation_config.json, the
tokenizer and its chat template into TARGET_DIR. Speaks JSON lines on stdout: `{"step": "…"}` as it
goes, at the end `{"done": BYTES}`, or `{"error": "…"}` and exit code 1. No network is used.
"""

import functools
import json
import os
import sys
from pathlib import Path
from typing import Any


def say(**record: Any) -> None:
    """One JSON line on stdout."""
    print(json.dumps(record), flush=True)


def convert(gguf_file: Path, target: Path) -> int:
    """Write the folder; the number of bytes written. Raises what the libraries below raise."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    say(step="import")
    import gguf

    # transformers parses the file's 100,000 strings three times and its name table once per module;
    # once is enough: 25 s become 11 s for the starter model.
    gguf.GGUFReader = functools.cache(gguf.GGUFReader)
    gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    place: dict[str, Any] = {
        "pretrained_model_name_or_path": str(gguf_file.parent),
        "gguf_file": gguf_file.name,
    }
    say(step="weights")
    model = AutoModelForCausalLM.from_pretrained(
        **place, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    say(step="write")
    model.save_pretrained(target)
    say(step="tokenizer")
    AutoTokenizer.from_pretrained(**place).save_pretrained(target)
    for file in target.iterdir():
        file.chmod(0o644)
    return sum(file.stat().st_size for file in target.iterdir())


def main(arguments: list[str]) -> int:
    """The exit code: 0 when TARGET_DIR is complete."""
    if len(arguments) != 2:
        say(error="usage: convert.py GGUF_FILE TARGET_DIR")
        return 2
    gguf_file, target = (Path(argument).absolute() for argument in arguments)
    try:
        target.mkdir(parents=True, exist_ok=True)
        say(done=convert(gguf_file, target))
    except Exception as error:  # whatever went wrong is told to the parent, in one line
        say(error=f"{type(error).__name__}: {' '.join(str(error).split())}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
