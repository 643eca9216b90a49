"""Starts of other versions that people have published, in the columns of the table of rows.

The figures alone, read in start-up logs of public repositories and pages. They are not in
memory_ground_truth.csv, and none of it was used to make the constants of versions before 0.17.
`available_kv_gib` as logged ("Available KV cache memory"); the models' configs are the table's.
"""

from tests.plan.accuracy.truth import Row

_COLUMNS = (
    "id", "model", "config_file", "attention", "quant", "gpu", "gpu_total_gib", "tp", "pp", "dp",
    "vllm_version", "gpu_memory_utilization", "max_model_len", "kv_cache_dtype", "other_flags",
    "weights_gib_per_gpu", "activation_gib", "non_torch_gib", "cuda_graph_gib", "available_kv_gib",
    "gpu_kv_tokens", "max_concurrency_x", "required_kv_gib_for_max_len", "reported_est_max_len",
    "formula_kv_bytes_per_token_per_gpu", "formula_kv_tokens", "token_error_pct",
    "formula_required_gib", "measured_on", "confidence", "source", "notes",
)  # fmt: skip

# Each with the sum that its log prints, where it prints one.
_STARTS: tuple[dict[str, str], ...] = (
    {  # 15.26 consumed, 1.44 peak activation with the estimated graphs, 0.23 graphs
        "id": "N1", "model": "meta-llama/Llama-3.1-8B-Instruct", "quant": "bf16",
        "config_file": "meta-llama__Llama-3.1-8B-Instruct.json", "gpu": "A100 80GB",
        "gpu_total_gib": "79.25", "vllm_version": "0.31.0", "gpu_memory_utilization": "0.92",
        "max_model_len": "131072", "weights_gib_per_gpu": "15.0", "available_kv_gib": "56.21",
        "gpu_kv_tokens": "460496", "max_concurrency_x": "3.51",
    },
    {  # 1.49 consumed, 0.25 peak activation, 0.37 graphs, offline (8,192 tokens a step)
        "id": "N2", "model": "Qwen/Qwen2.5-0.5B-Instruct", "quant": "bf16",
        "config_file": "Qwen__Qwen2.5-0.5B-Instruct.json", "gpu": "24 GB card",
        "gpu_total_gib": "23.99", "vllm_version": "0.28", "gpu_memory_utilization": "0.85",
        "other_flags": "--max-num-batched-tokens 8192", "weights_gib_per_gpu": "0.93",
        "available_kv_gib": "18.65", "gpu_kv_tokens": "1629520",
    },
    {  # 56.89 consumed, 0.76 peak activation, 0.32 graphs
        "id": "N3", "model": "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "quant": "fp8",
        "config_file": "Qwen__Qwen3-235B-A22B-FP8.json", "gpu": "96 GB card x4",
        "gpu_total_gib": "95.01", "tp": "4", "vllm_version": "0.27",
        "gpu_memory_utilization": "0.9", "max_model_len": "32768",
        "other_flags": "--max-num-seqs 32", "weights_gib_per_gpu": "55.19",
        "available_kv_gib": "27.85", "gpu_kv_tokens": "621392", "max_concurrency_x": "18.96",
    },
    {  # 8.8 weights, 1.4 peak activation, 0.02 non-torch, 0.68 graphs
        "id": "N4", "model": "Qwen/Qwen3-8B-FP8", "quant": "fp8",
        "config_file": "Qwen__Qwen3-8B.json", "gpu": "24 GB card", "gpu_total_gib": "23.53",
        "vllm_version": "0.10.2", "gpu_memory_utilization": "0.8", "max_model_len": "1024",
        "weights_gib_per_gpu": "8.8", "available_kv_gib": "8.598",
    },
    {  # 74.28 weights, 5.58 peak activation, 1.38 non-torch, 2.37 graphs
        "id": "N5", "model": "Qwen/Qwen3-Next-80B-A3B", "quant": "bf16",
        "config_file": "Qwen__Qwen3-Next-80B-A3B-Thinking.json", "gpu": "H200 x2",
        "gpu_total_gib": "139.81", "tp": "2", "vllm_version": "0.11.0",
        "gpu_memory_utilization": "0.9", "max_model_len": "262144",
        "weights_gib_per_gpu": "74.28", "available_kv_gib": "44.59", "max_concurrency_x": "14.77",
    },
    {
        "id": "N6", "model": "openai/gpt-oss-20b", "quant": "mxfp4",
        "config_file": "openai__gpt-oss-20b.json", "gpu": "A100 80GB", "gpu_total_gib": "79.25",
        "vllm_version": "0.19.0", "gpu_memory_utilization": "0.65", "max_model_len": "131072",
        "weights_gib_per_gpu": "13.72", "available_kv_gib": "36.56",
    },
    {  # 0.52 estimated graphs; LMCache/LMCache#3430
        "id": "N8", "model": "Qwen/Qwen3-8B", "quant": "bf16",
        "config_file": "Qwen__Qwen3-8B.json", "gpu": "24 GB card", "gpu_total_gib": "23.53",
        "vllm_version": "0.21", "gpu_memory_utilization": "0.9764", "max_model_len": "16384",
        "available_kv_gib": "6.37", "gpu_kv_tokens": "46368", "max_concurrency_x": "2.83",
    },
    {  # 3.35 consumed
        "id": "N7", "model": "Qwen/Qwen3-0.6B", "quant": "bf16",
        "config_file": "Qwen__Qwen3-0.6B.json", "gpu": "DGX Spark (GB10) x2",
        "gpu_total_gib": "121.69", "vllm_version": "0.27.1", "gpu_memory_utilization": "0.6",
        "available_kv_gib": "69.4", "gpu_kv_tokens": "649728",
    },
)  # fmt: skip


def newer_rows() -> tuple[Row, ...]:
    """Starts that are not in the table."""
    empty = dict.fromkeys(_COLUMNS, "") | {"measured_on": "vLLM INFO log", "confidence": "high"}
    return tuple(Row(empty | start) for start in _STARTS)
