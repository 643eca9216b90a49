"""Root causes in failures of other people: excerpts of logs from public issues, vLLM 0.6 to 0.29.

The first line of each file in `failures/` names the thread. Excerpts are abridged: frames are left
out, paths are shortened.
"""

import re
from pathlib import Path

import pytest

from serve.engine.triage import find_cause

FAILURES = Path(__file__).parent / "failures"
SOURCE = re.compile(r"# [\w.-]+/[\w.-]+#\d+")
# file → (words of the cause, words of the remedy, kind)
EXPECTED: dict[str, tuple[str, str, str | None]] = {
    "architecture-uninspected": ("GptOssForCausalLM cannot be imported", "install", None),
    "awq-capability": ("awq takes a GPU of capability 75, this one has 70", "variant", None),
    "awq-dtype": ("awq does not go with torch.bfloat16", "torch.float16", None),
    "bfloat16": ("takes compute capability 8.0)", "engine.dtype", None),
    "context-0.15": ("262144 tokens needs 24.0 GiB", "34736 or less", "context"),
    "context-0.8": ("1048576 tokens needs 24.00 GiB", "engine.context", None),
    "context-derived": ("131072 tokens was asked for, the model was made for 8192", "8192", None),
    "context-v0": ("32768 tokens does not fit", "7344 or less", "context_v0"),
    "damaged-file": ("damaged or cut short", "pull it again", None),
    "driver-mismatch": ("of different versions", "restart the machine", None),
    "driver-too-old": ("driver is too old", "580", None),
    "ecc": ("the GPU has failed", "card is broken", None),
    "experts": ("256 experts cannot be split over 3", "divides 256", None),
    "fabric-manager": ("NVSwitch fabric is not up", "nvidia-fabricmanager", None),
    "flag-missing": ("following arguments are required: model_tag", "engine.args", None),
    "forked-cuda": ("forked when CUDA was in use", "plugin", None),
    "fp8-blocks-0.23": ("192 wide, which is no multiple of their blocks of 128", "fewer", None),
    "fp8-blocks-0.8": ("192 wide, which is no multiple of their blocks of 128", "fewer", None),
    "fp8-too-new": ("cannot compute in FP8", "not FP8", None),
    "free-memory-0.11": ("only 3.22 of 4.0 GiB", "inhouse devices", "gpu_busy"),
    "free-memory-0.9": ("only 59.32 of 79.15 GiB", "inhouse devices", "gpu_busy"),
    "free-memory-ray": ("only 19.77 of 22.05 GiB", "inhouse devices", "gpu_busy"),
    "gated": ("repository is gated", "ask for access", None),
    "glibc": ("GLIBC_2.34 is asked for", "Ubuntu 22.04", None),
    "hang-execute": ("hung", "start it again", None),
    "harmony": ("gpt-oss's own tokenizer files", "o200k_base.tiktoken", None),
    "heads": ("64 attention heads cannot be split over 3", "divides 64", None),
    "illegal-instruction": ("lacks instructions", "AVX", None),
    "kv-fp8-backend": ("no attention kernel", "engine.kv_dtype", None),
    "libcuda": ("library libcuda.so.1 is missing", "--gpus all", None),
    "libcudart-13": ("libcudart.so.13 is missing", "inhouse engine install", None),
    "model-type": ("model type qwen3_5", "newer vLLM", None),
    "nccl-cuda": ("NCCL: unhandled cuda error", "NCCL_P2P_DISABLE=1", None),
    "nccl-shm": ("/dev/shm is too small", "--shm-size", None),
    "nccl-system": ("NCCL: unhandled system error", "NCCL_DEBUG=INFO", None),
    "no-device-type": ("sees no GPU", "inhouse doctor", None),
    "no-gpus": ("sees no GPU", "inhouse doctor", None),
    "no-kernel-image": ("no code for this kind of GPU", "7.5", None),
    "no-kv-0.11": ("leave no memory for the KV cache", "more GPUs", "no_kv"),
    "no-kv-0.6": ("leave no memory for the KV cache", "more GPUs", "no_kv"),
    "nvcc-0.10": ("nvcc is missing", "CUDA_HOME", None),
    "nvcc-0.11": ("nvcc is missing", "CUDA_HOME", None),
    "nvcc-aot": ("nvcc is missing", "CUDA_HOME", None),
    "offline-cache": ("no network to fetch it", "pull it again", None),
    "offline-hub": ("no network to fetch it", "pull it again", None),
    "open-files": ("limit of open files", "ulimit -n", None),
    "out-of-memory-0.8": ("another 1.74 GiB was asked for", "more GPUs", None),
    "out-of-memory-capture": ("while CUDA graphs were recorded", "utilization", "after_kv"),
    "out-of-memory-graphs": ("while CUDA graphs were recorded", "utilization", "after_kv"),
    "port-taken": ("socket is taken", "paths.run", None),
    "profiling-disturbed": ("while vLLM measured it", "nothing else starts or ends", None),
    "python-headers": ("Python's headers", "python3-dev", None),
    "quantised-split": ("cannot be split over so many", "engine.tensor_parallel", None),
    "remote-code-old": ("Python of its own repository", "variant", None),
    "sampler-0.11": ("rehearsal with 1024 requests", "less than 1024", "sampler"),
    "sampler-0.8": ("rehearsal with 1024 requests", "less than 1024", "sampler"),
    "scheme-capability": ("GPU of capability 80, this one has 75", "variant", None),
    "slow-load": ("took too long to load", "page cache", None),
    "threads": ("limit of processes and threads", "ulimit -u", None),
    "triton-shared-memory": ("66560 bytes of shared memory, this GPU has 65536", "8.0", None),
    "unknown-tensor": ("layers.1.mlp.experts.w13_weight", "newer vLLM", None),
    "worker-died-0.9": ("a process of the engine died", "dmesg", None),
    "zmq-taken": ("socket is taken", "paths.run", None),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_first_cause_is_named_with_what_to_do(name: str) -> None:
    source, log = (FAILURES / f"{name}.txt").read_text().split("\n", 1)
    cause, remedy, kind = EXPECTED[name]
    found = find_cause(log)
    assert SOURCE.fullmatch(source)
    assert cause in found.cause
    assert found.remedy is not None and remedy in found.remedy
    assert found.facts[:1] == ((kind,) if kind else ())


def test_every_excerpt_is_expected_to_say_something() -> None:
    assert {path.stem for path in FAILURES.iterdir()} == set(EXPECTED)
    assert len({path.read_text().splitlines()[0] for path in FAILURES.iterdir()}) > 50


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_talk_of_a_start_that_goes_well_hides_nothing(name: str) -> None:
    """What vLLM says at every start quotes flags, limits and errors that may come."""
    _, log = (FAILURES / f"{name}.txt").read_text().split("\n", 1)
    talk = """\
(APIServer pid=1) INFO 11-22 01:35:31 [api_server.py:1] args: Namespace(trust_remote_code=True)
(APIServer pid=1) WARNING 11-22 01:35:32 [system_utils.py:255] Found ulimit of 20000 and failed to \
automatically increase. This can cause fd limit errors like `OSError: [Errno 24] Too many open \
files`. Consider increasing with ulimit -n
(EngineCore pid=2) INFO 11-22 01:35:33 [core.py:1] No available shared memory broadcast block found
"""
    assert find_cause(talk + log) == find_cause(log)
