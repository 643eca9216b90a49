"""Says what vLLM makes of tiny models: `log_kv.py CASES FOLDER`.

Run with a runtime's Python. CASES is a JSON list of {"name", "config", "options"}: the config.json
of a model, and options of vLLM's engine. Every engine is started for real, with random weights, in
this process, one after another. One line of JSON each goes to stdout: what vLLM's log is made of,
or the sentence by which the engine refuses to start. The log itself goes to stderr.

Three of vLLM's habits are left out, which cost most of the time and change no figure: it looks into
each architecture in a process of its own, ranks import everything anew, and eight times per engine
all that was imported is searched for garbage.
"""

import gc
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # else the engine's core hides in a child

from vllm import LLM
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.model_executor.models import registry

collect = gc.collect


def look(config: dict[str, Any], options: dict[str, Any], weights: Path) -> dict[str, Any]:
    weights.mkdir()
    (weights / "config.json").write_text(json.dumps(config))
    quick = {"load_format": "dummy", "skip_tokenizer_init": True, "enforce_eager": True}
    engine = LLM(model=str(weights), **quick, **options).llm_engine
    cache = engine.vllm_config.cache_config
    found = {
        "blocks": cache.num_gpu_blocks,
        "block_tokens": cache.block_size,
        "tokens": cache.kv_cache_size_tokens,
        "concurrency": cache.kv_cache_max_concurrency,
    }
    engine.engine_core.shutdown()
    return found


def look_or_refusal(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    try:
        found = look(case["config"], case["options"], folder / case["name"])
    except ValueError as error:
        found = {"refusal": str(error)}
    cleanup_dist_env_and_memory()
    collect()
    return {"name": case["name"], **found}


def hurry() -> None:
    fork = multiprocessing.get_context("fork")
    setattr(multiprocessing, "get_context", lambda method=None: fork)  # noqa: B010
    setattr(registry, "_run_in_subprocess", lambda look: look())  # noqa: B010
    setattr(gc, "collect", lambda generation=2: 0)  # noqa: B010


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)  # what ranks print is log too
        hurry()
        for case in json.loads(sys.argv[1]):
            print(json.dumps(look_or_refusal(case, Path(sys.argv[2]))), file=out, flush=True)
