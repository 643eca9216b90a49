"""What a runtime's vLLM allocates for models, in bytes: `count_weights.py < QUESTION`.

QUESTION: a list of {"folder", "tensor", "pipeline", "stage", "is_expert", "is_loaded"}. For each,
vLLM builds the model of that folder's config.json as the first tensor rank of that pipeline stage,
on torch's meta device, so that the largest fits; the answer, a line of JSON on stdout, is a list of
{"n_bytes": its parameters and buffers, "absorbed_bytes", "problem"}. `is_loaded`: a small one is
finished as after loading, and the copies that latent attention makes are counted.

There is one process: the sizes of vLLM's groups are set by hand.
"""

import json
import os
import sys
import tempfile
from functools import lru_cache
from typing import Any

os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"

import torch
from torch.fx.experimental import _config as fx_config
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed import parallel_state
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader.utils import (
    initialize_model,
    process_weights_after_loading,
)
from vllm.utils.torch_utils import set_default_torch_dtype

fx_config.meta_nonzero_assume_all_nonzero = True
COPIES = ("W_UK_T", "W_UV")


@lru_cache
def configure(folder: str, backend: str | None) -> VllmConfig:
    return EngineArgs(
        model=folder, skip_tokenizer_init=True, load_format="dummy", enforce_eager=True,
        max_model_len=512, attention_config={"backend": backend} if backend else {},
    ).create_engine_config()  # fmt: skip


def pretend(case: dict[str, Any], config: VllmConfig) -> None:
    """As if there were so many ranks, and this were the first of its stage."""
    if parallel_state._EP is None:
        parallel_state._EP = parallel_state._TP
    tensor, pipeline = parallel_state._TP, parallel_state._PP
    tensor.world_size, tensor.rank_in_group = case["tensor"], 0
    pipeline.world_size, pipeline.rank_in_group = case["pipeline"], case["stage"]
    pipeline.ranks, pipeline.rank = list(range(case["pipeline"])), case["stage"]
    config.parallel_config.tensor_parallel_size = case["tensor"]
    config.parallel_config.enable_expert_parallel = case["is_expert"]


def begin(config: VllmConfig, folder: str) -> None:
    if parallel_state._TP is None:
        with set_current_vllm_config(config):
            store = f"file://{folder}/store"
            parallel_state.init_distributed_environment(1, 0, store, 0, "gloo")
            parallel_state.ensure_model_parallel_initialized(1, 1)


def count(case: dict[str, Any], folder: str) -> dict[str, Any]:
    config = configure(case["folder"], "CPU_MLA" if case["is_loaded"] else None)
    config.compilation_config.static_forward_context.clear()
    begin(config, folder)
    pretend(case, config)
    # Which experts are whose is decided by numbers, which the meta device has not.
    device = torch.device("cpu" if case["is_expert"] or case["is_loaded"] else "meta")
    dtype = config.model_config.dtype
    with set_current_vllm_config(config), set_default_torch_dtype(dtype), device:
        model = initialize_model(vllm_config=config)
        tensors = {id(one): one for one in [*model.parameters(), *model.buffers()]}.values()
        n_bytes = sum(map(size, tensors))
        if case["is_loaded"]:
            process_weights_after_loading(model, config.model_config, device)
    return {"n_bytes": n_bytes, "absorbed_bytes": copies(model)}


def copies(model: torch.nn.Module) -> int:
    """Bytes that latent attention's two matrices take besides the one they were made of."""
    held: dict[int, int] = {}
    for module in model.modules():
        found = [getattr(module, name, None) for name in COPIES]
        for one in (each for each in found if isinstance(each, torch.Tensor)):
            held[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
    for module in model.modules():
        source = getattr(getattr(module, "kv_b_proj", None), "weight", None)
        if isinstance(source, torch.Tensor):
            held.pop(source.untyped_storage().data_ptr(), None)
    return sum(held.values())


def size(one: torch.Tensor) -> int:
    return int(one.numel() * one.element_size())


def answer(case: dict[str, Any], folder: str) -> dict[str, Any]:
    try:
        return {"problem": None} | count(case, folder)
    except (ValueError, RuntimeError, AssertionError) as error:
        return {"problem": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print("\n" + json.dumps([answer(case, scratch) for case in json.load(sys.stdin)]))
