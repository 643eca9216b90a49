"""Every memory constant of the planner, each with its source. All sizes in bytes.

vLLM charges its budget (utilization × total memory) with weights, the peak of a profiling run, what
torch does not see, and CUDA graphs; what is left becomes KV cache (v1/worker/gpu_worker.py,
determine_available_memory). "Logs" are start-up logs of vLLM 0.8 to 0.31 that people have
published, on A100, H100, H200, B200, L40S and RTX cards; docs/plan-accuracy.md shows how the sums
meet them. An interval is a pair of factors: what is measured lies between.
"""

GIB = 2**30

# The CUDA context is made before vLLM measures, so it lowers what is free but is not charged. Logs:
# 0.2 GiB on an L4, 0.4 to 0.6 on A100, H100 and H200.
CUDA_CONTEXT_BYTES = 6 * GIB // 10
# NCCL's buffers, made before the measurement too, with more than one card. Logs: 0.1 GiB with 2
# ranks, 0.5 with 4 (2.0 on a B200).
NCCL_BYTES = GIB // 2

# Bytes per vocabulary entry and sequence at the peak of the sampler's dummy run, since when. The
# first model runner sorted all logits: fitted to peaks on an H100 with 1024 sequences, of 4.76 GiB
# with 128,256 entries, 5.56 with 151,936 and 7.38 with 201,088 (vLLM 0.11). Since 0.17 it masks
# them in place (bf16 and fp32 logits, probabilities, noise, FlashInfer's copies: 14 to 18 in the
# source; two logs say 15 and 21). The second runner samples in one kernel, and its dummy requests
# set no top-k or top-p: bf16 logits remain, with several ranks a part of them, all gathered, and
# put in order.
SAMPLER_FIRST_RUNNER = (((0, 17), 16, (0.85, 1.35)), ((0, 0), 38.6, (0.95, 1.08)))
SAMPLER_SECOND_RUNNER = (2, (0.9, 1.6))
SAMPLER_SECOND_RUNNER_GATHERED = (5, (0.5, 1.2))
# The second runner is for all models since 0.29; since 0.25 for those without experts and without
# linear attention (config/vllm.py, use_v2_model_runner). It weighs its CUDA graphs since 0.29.
SECOND_RUNNER_FOR_ALL = (0, 29)
SECOND_RUNNER_FOR_PLAIN = (0, 25)
# The forward pass: 0.25 GiB in a log of Qwen2.5-0.5B with 8,192 tokens, which the formula gives.
FORWARD_INTERVAL = (0.7, 1.5)
# CUDA graphs as vLLM weighs them before it captures them: it multiplies the second largest graph by
# the number of graphs, which comes to two or three times what they take (vllm-project/vllm#45178).
# Fitted to logs: 0.26 to 0.6 GiB with 1 to 5 graphs, 0.4 to 1.2 (mostly 0.5) with 35 or 51 and
# dense models of 28 to 36 layers, 5.0 with 51 and 78 layers with experts.
GRAPH_FIXED_BYTES = 3 * GIB // 10
GRAPH_LAYER_BYTES = 2**18  # per layer and graph
GRAPH_EXPERT_LAYER_BYTES = 13 * 2**20 // 10  # of a layer with experts
GRAPH_INTERVAL = (0.5, 2.2)
# What torch does not see, and what stays allocated after the profiling run. Logs: 0.07 to 0.16 GiB
# before 0.12, 0.26 to 0.3 in 0.28 to 0.31 on one card.
OTHER_BYTES = 13 * GIB // 100
OTHER_NOW_BYTES = 27 * GIB // 100
OTHER_NOW_SINCE = (0, 12)
# On top between cards with NVLink: buffers of the all-reduce kernels. Logs: 0.95 to 1.4 GiB in all
# with 2 and 4 ranks; 0.21 in all where there is PCIe only.
OTHER_LINKED_BYTES = 8 * GIB // 10
# On top on cards of compute capability 10: FlashInfer's workspace.
OTHER_FLASHINFER_BYTES = 394 * 2**20
# On top where the GPU shares its memory with the CPU: what the rest of the machine took meanwhile
# counts as ours. Logs of a GB10: 2.2 to 5.7 GiB in all.
OTHER_UNIFIED_BYTES = 7 * GIB // 2
OTHER_INTERVAL = (0.5, 2.0)

# On a CPU: API server, engine core and worker with all their imports take 2.2 to 2.5 GiB (measured,
# vLLM 0.32), and oneDNN keeps some weights in a second layout (estimate).
CPU_ENGINE_BYTES = 5 * GIB // 2
CPU_ENGINE_INTERVAL = (22 * GIB // 10, 28 * GIB // 10)
CPU_WEIGHTS_FACTOR = 1.1
# The KV cache of a CPU takes at most this share of the free memory and room for so many requests of
# full length: the machine is seldom ours alone, and two models may be wanted (our choice).
CPU_KV_SHARE = 1 / 3
CPU_KV_CONTEXTS = 16
