"""Root causes: from real logs of vLLM 0.32 (`logs/`, made to fail on purpose), and line by line."""

from pathlib import Path

import pytest

from serve.engine.triage import CAUSES, CONSEQUENCES, Finding, find_cause

LOGS = Path(__file__).parent / "logs"
CORE = "(EngineCore pid=2) ERROR 01-01 00:00:00 [core.py:1] "
WORKER = "(Worker_TP1 pid=3) ERROR 01-01 00:00:00 [multiproc_executor.py:1] "
LAST = """\
(APIServer pid=1) Traceback (most recent call last):
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above."""


@pytest.mark.parametrize(
    ("log", "cause", "remedy"),
    [
        ("bad-quantization", "does not know the quantisation fp8x", "variant"),
        ("config-is-not-json", "/weights/tiny/config.json is not JSON", "pull it again"),
        ("context-too-long", "100000 tokens was asked for, the model was made for 8192", "8192"),
        ("heads-not-divisible", "9 attention heads cannot be split over 2", "divides 9"),
        ("hub-name", "no network to fetch it", "pull"),
        ("kv-more-than-memory", "cache of 372.53 GiB was asked for, 15.54 GiB", "engine.kv_cache"),
        ("kv-too-small", "4096 tokens needs 0.09 GiB of KV cache, 0.01 GiB are", "256 or less"),
        ("memory-default", "15.89 of 16.96 GiB of this machine's memory are free", "kv_cache"),
        ("missing-weights", "no weights in /weights/tiny", "pull"),
        ("no-such-folder", "no folder with a model at /weights/tiny", "pull"),
        ("no-tokenizer", "no tokenizer that can be read", "pull"),
        ("remote-code", "wants to run Python of its own repository", "variant"),
        ("socket-path-too-long", "path of the engine's socket is too long", "paths.run"),
        ("socket-taken", "socket is taken", "paths.run"),
        ("tool-parser-missing", "without a parser", "--tool-call-parser"),
        ("truncated-safetensors", "damaged or cut short", "pull it again"),
        ("unknown-architecture", "architecture NoSuchForCausalLM", "another model"),
        ("unknown-flag", "unrecognized arguments: --no-such-flag", "engine.args"),
        ("wrong-reasoning-parser", "no reasoning parser nosuch", "catalog"),
        ("wrong-shapes", "not have the shapes", "pull it again"),
        ("wrong-tool-parser", "no tool call parser nosuch", "catalog"),
    ],
)
def test_real_logs_say_their_cause(log: str, cause: str, remedy: str) -> None:
    found = find_cause((LOGS / f"{log}.txt").read_text())
    assert cause in found.cause
    assert found.remedy is not None and remedy in found.remedy


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (
            "ValueError: Free memory on device cuda:0 (10.5/79.2 GiB) on startup is less than "
            "desired GPU memory utilization (0.92, 72.8 GiB).",
            "only 10.5 of 79.2 GiB of the GPU's memory are free",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "2.00 GiB"),
        (
            "RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy "
            "requests.",
            "1024 requests",
        ),
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 12040).",
            "driver is too old",
        ),
        (
            "ImportError: libcudart.so.13: cannot open shared object file: No such file",
            "libcudart.so.13 is missing",
        ),
        (
            "RuntimeError: CUDA error: no kernel image is available for execution on the device",
            "GPU",
        ),
        ("RuntimeError: Could not find nvcc and default cuda_home='/usr/local/cuda'", "nvcc"),
        ("InvalidCxxCompiler: No working C++ compiler found in None", "C++ compiler"),
        ("RuntimeError: NCCL error: unhandled system error", "NCCL"),
        ("ValueError: No available memory for the cache blocks. Try", "no memory for the KV cache"),
        (
            "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least "
            "8.0.",
            "takes compute capability 8.0",
        ),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("RuntimeError: RPC call to sample_tokens timed out.", "hung"),
        ("RuntimeError: Not enough allowed NUMA nodes to bind threads", "NUMA"),
    ],
)
def test_known_lines_have_a_cause_and_a_remedy(line: str, cause: str) -> None:
    log = f"{CORE}Traceback (most recent call last):\n{CORE}{line}\n{LAST}"
    found = find_cause(log)
    assert cause in found.cause
    assert found.remedy


def test_a_worker_that_the_kernel_killed_is_seen_behind_its_consequences() -> None:
    log = f"""\
{CORE}Worker proc VllmWorker-0 died unexpectedly (exit code: -9), shutting down executor.
{CORE}Traceback (most recent call last):
{CORE}RuntimeError: Executor failed.
{LAST}"""
    assert "kernel killed" in find_cause(log).cause
    assert "crashed (exit code -11)" in find_cause(log.replace("-9", "-11")).cause


def test_a_core_that_the_kernel_killed_is_seen_behind_its_worker() -> None:
    log = """\
(Worker pid=71) ERROR 11-22 07:05:49 [multiproc_executor.py:1002] Traceback (most recent call last):
(Worker pid=71) ERROR 11-22 07:05:49 [multiproc_executor.py:1002]   File "x.py", line 867
(Worker pid=71) ERROR 11-22 07:05:49 [multiproc_executor.py:1002] RuntimeError: cancelled
(APIServer pid=33) RuntimeError: Engine core initialization failed. See root cause above. \
Failed core proc(s): {'EngineCore_0': -9}
"""
    finding = find_cause(log, 1)
    assert finding.cause.startswith("the kernel killed a process of the engine")
    assert finding.remedy == "set a smaller engine.kv_cache, or choose a smaller model"


@pytest.mark.parametrize(
    ("exit_code", "cause"),
    [
        (-9, "the kernel killed a process of the engine, most likely for lack of memory"),
        (-4, "the processor lacks instructions that vLLM was built with"),
        (-11, "a process of the engine crashed (exit code -11)"),
        (1, "loading weights"),
        (None, "loading weights"),
    ],
)
def test_who_is_killed_says_nothing_but_its_exit_code_does(
    exit_code: int | None, cause: str
) -> None:
    talk = "(APIServer pid=1) INFO 01-01 00:00:00 [x.py:1] loading weights"
    assert find_cause(talk, exit_code).cause == cause


@pytest.mark.parametrize(
    ("step", "cause", "kind"),
    [
        ("load_model", "the weights do not fit into the GPU's memory", ()),
        ("profile_run", "the rehearsal of the largest batch", ("profile", "2.00 GiB")),
        ("_allocate_kv_cache_tensors", "when the KV cache was made", ("after_kv", "2.00 GiB")),
        ("capture_model", "while CUDA graphs were recorded", ("after_kv", "2.00 GiB")),
        ("forward", "memory ran out (another 2.00 GiB was asked for)", ()),
    ],
)
def test_where_the_memory_ran_out_tells_what_to_change(
    step: str, cause: str, kind: tuple[str, ...]
) -> None:
    log = f"""\
{WORKER}Traceback (most recent call last):
{WORKER}  File "gpu_worker.py", line 1, in {step}
{WORKER}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
{LAST}"""
    found = find_cause(log)
    assert cause in found.cause
    assert found.facts == kind


def test_the_innermost_process_is_believed_first() -> None:
    log = f"""\
{CORE}Traceback (most recent call last):
{CORE}ValueError: what the core made of it
{WORKER}Traceback (most recent call last):
{WORKER}  File "x.py", line 1, in y
{WORKER}KeyError: 'layers.7'
{WORKER}The above exception was the direct cause of the following exception:
{WORKER}Traceback (most recent call last):
{WORKER}zoo.StrangeError: layer 7 is odd
{WORKER}Traceback (most recent call last):
{WORKER}OSError: a later one
{LAST}"""
    assert find_cause(log) == Finding("zoo.StrangeError: layer 7 is odd")


def test_pydantic_is_asked_for_the_detail() -> None:
    log = """\
Traceback (most recent call last):
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, the moon is full [type=value_error, input_value=1, input_type=int]"""
    assert find_cause(log) == Finding("the moon is full")


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        ("", "it ended without a word"),
        (LAST, "Traceback (most recent call last):"),
        ("(APIServer pid=1) INFO 01-01 00:00:00 [x.py:1] Segmentation fault", "Segmentation fault"),
    ],
)
def test_without_a_traceback_the_last_words_count(log: str, cause: str) -> None:
    assert find_cause(log).cause == cause


def test_every_row_can_fill_its_sentences() -> None:
    for row in (*CAUSES, *CONSEQUENCES):
        blanks = ["?"] * row.pattern.groups
        assert row.sentence.format(*blanks)
        assert row.remedy is not None and row.remedy.format(*blanks)


def test_the_usage_that_comes_with_a_refused_flag_is_no_cause() -> None:
    log = """\
usage: vllm [-h] [--trust-remote-code | --no-trust-remote-code]
vllm: error: argument --dtype: invalid choice: 'int8' (choose from 'auto', 'bfloat16')"""
    assert "argument --dtype: invalid choice" in find_cause(log).cause


@pytest.mark.parametrize(
    "line",
    [
        "max seq len (1), (1 GiB KV cache is needed ",
        "/dev/shm ",
        "No space left on device ",
        "Weight files referenced in index but missing: {a/",
        "KeyError: 'a.",
    ],
)
@pytest.mark.parametrize("is_one_line", [False, True])
@pytest.mark.timeout(30)
def test_a_log_that_is_made_to_take_long_does_not(line: str, is_one_line: bool) -> None:
    """A MiB of it took five minutes before lines were cut and what lies between words was bounded;
    it takes about a second."""
    repeated = line * (2000 // len(line)) + ("" if is_one_line else "\n")
    assert find_cause(repeated * 250).cause
