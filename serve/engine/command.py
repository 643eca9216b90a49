"""The one home of vLLM's flags and environment: a plan becomes a command for a host."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from serve.engine.flags import Flags, from_spec, merge, parse, to_argv
from serve.engine.preload import GLIBC_TUNING, preloads
from serve.engine.runtime import Runtime
from serve.plan import Plan

Mode = Literal["eager", "compiled"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
DRAIN_S = 30  # vLLM's own limit for requests that run when it is told to stop
# What passes from our environment to an engine's: where programs and drivers lie, no more.
_PASSED = ("PATH", "HOME", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "CC", "CXX")
_PASSED_PREFIXES = ("NVIDIA_", "NCCL_")
_FIXED_ENV = {
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # block hashes are the same in every life and replica
    "PYTHONNOUSERSITE": "1",
    "PYTHONUNBUFFERED": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_PLUGINS": "",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    "VLLM_LOGGING_COLOR": "0",
    "VLLM_DISABLE_LOG_LOGO": "1",
    "NO_COLOR": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True, slots=True)
class Launch:
    """What a start adds to a plan.

    `scratch_dir`: this engine's own, for inner sockets and temporary files. `cache_dir`: compiled
    programs, shared by all engines. `mode` counts on a CPU only. `extra_args`: the operator's
    `engine.args`. `inherited`: the launcher's environment, of which little is passed on.
    `is_rehearsal`: compile, become healthy, never serve; the KV cache is no larger than vLLM takes.
    """

    socket: Path
    scratch_dir: Path
    cache_dir: Path
    mode: Mode = "eager"
    extra_args: tuple[str, ...] = ()
    inherited: Mapping[str, str] = field(default_factory=dict)
    is_rehearsal: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """`argv`: vLLM's own arguments, without a program. `host_env`: what the host is started with,
    known before any plan; `env`: what the plan adds to it. `mode`: what the engine will run in."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    host_env: Mapping[str, str]
    mode: Mode


def build_command(plan: Plan, runtime: Runtime, launch: Launch) -> Command:
    """The whole command of one engine. Raises SettingsError for `engine.args` that we refuse."""
    flags = merge(
        _place_flags(plan, launch),
        _FIXED_FLAGS,
        _parser_flags(plan),
        _device_flags(plan, launch),
        _code_flags(plan),
        _spec_flags(plan),
        _extension_flags(plan),
        _decided_flags(plan),
        parse(launch.extra_args),
    )
    return Command(
        argv=to_argv(flags),
        env=_plan_env(plan, launch),
        host_env=host_env(runtime, launch.scratch_dir, launch.cache_dir, launch.inherited),
        mode="eager" if "enforce-eager" in flags else "compiled",
    )


def host_env(
    runtime: Runtime, scratch_dir: Path, cache_dir: Path, inherited: Mapping[str, str]
) -> dict[str, str]:
    """The closed environment of a host that knows no plan yet (a spare).

    It says "offline" to all that would call home, and keeps temporary files in `scratch_dir`,
    caches in `cache_dir`.
    """
    root = runtime_cache(runtime, cache_dir)
    passed = {
        name: value
        for name, value in inherited.items()
        if name in _PASSED or name.startswith(_PASSED_PREFIXES)
    }
    path = f"{runtime.python.parent}:{passed.get('PATH', '/usr/local/bin:/usr/bin:/bin')}"
    speed: dict[str, str] = {}
    if runtime.device == "cpu":
        libraries = ":".join(map(str, preloads(runtime)))
        speed = GLIBC_TUNING | ({"LD_PRELOAD": libraries} if libraries else {})
    return (
        passed
        | _FIXED_ENV
        | {
            "PATH": path,
            "TMPDIR": str(scratch_dir),
            "XDG_CACHE_HOME": str(root),
            "HF_HOME": str(root / "huggingface"),
            "VLLM_CACHE_ROOT": str(root / "vllm"),
            "VLLM_CONFIG_ROOT": str(root / "config"),
            "TRITON_CACHE_DIR": str(root / "triton"),
            # For what is compiled besides the model; by itself it would lie in TMPDIR.
            "TORCHINDUCTOR_CACHE_DIR": str(root / "inductor" / _cpu_kind()),
            "FLASHINFER_WORKSPACE_BASE": str(root),
        }
        | speed
    )


def runtime_cache(runtime: Runtime, cache_dir: Path) -> Path:
    """Where engines of this runtime keep what they compile."""
    return cache_dir / runtime.name


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What this CPU can do, as the kernel says it; empty on an architecture that says otherwise."""
    for line in cpuinfo.read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return " ".join(sorted(line.partition(":")[2].split()))
    return ""


@cache
def _cpu_kind() -> str:
    """As a name of a folder: homes are shared by machines whose programs are not the same."""
    return hashlib.sha256(cpu_flags().encode()).hexdigest()[:16]


_FIXED_FLAGS: Flags = {
    "shutdown-timeout": (str(DRAIN_S),),
    "enable-prompt-tokens-details": (),
    "enable-request-id-headers": (),
    "disable-uvicorn-access-log": (),
    "disable-fastapi-docs": (),
    "generation-config": ("auto",),
    "seed": ("0",),
}


# What a plan decides: flag → its field.
_DECIDED = {
    "max-num-batched-tokens": "max_num_batched_tokens",
    "max-num-seqs": "max_num_seqs",
    "kv-cache-dtype": "kv_dtype",
    "dtype": "dtype",
}


def _place_flags(plan: Plan, launch: Launch) -> Flags:
    return {
        "model": (str(plan.subject.path),),
        "served-model-name": (plan.subject.spec.name,),
        "uds": (str(launch.socket),),
        "max-model-len": (str(plan.context_tokens),),
    }


def _parser_flags(plan: Plan) -> Flags:
    spec = plan.subject.spec
    flags: Flags = {}
    if spec.tool_call_parser is not None:
        flags["enable-auto-tool-choice"] = ()
        flags["tool-call-parser"] = (spec.tool_call_parser,)
    if spec.reasoning_parser is not None:
        flags["reasoning-parser"] = (spec.reasoning_parser,)
    return flags


def _code_flags(plan: Plan) -> Flags:
    """Only where the catalog approves a commit. That the weights are of that commit, and the view
    has its Python and no other, the store has seen to; the engine stays as shut in as any."""
    remote_code = plan.subject.spec.remote_code
    is_approved = remote_code is not None and _COMMIT.fullmatch(remote_code) is not None
    return {"trust-remote-code": ()} if is_approved else {}


def _extension_flags(plan: Plan) -> Flags:
    extension = plan.subject.spec.extension_for(plan.context_tokens)
    return from_spec(extension.engine_args or ()) if extension is not None else {}


def _decided_flags(plan: Plan) -> Flags:
    """Where the plan says nothing, vLLM's own default for the device is meant."""
    decided = {name: getattr(plan, field) for name, field in _DECIDED.items()}
    return {name: (str(value),) for name, value in decided.items() if value is not None}


def _spec_flags(plan: Plan) -> Flags:
    """The catalog entry's, but those that a plan decides: it has weighed the entry's against what
    the operator wishes, and where it says nothing after that, the entry must not either."""
    flags = from_spec(plan.subject.spec.engine_args)
    return {name: values for name, values in flags.items() if name not in _DECIDED}


def _device_flags(plan: Plan, launch: Launch) -> Flags:
    flags: Flags = {}
    if plan.tensor_parallel > 1:
        flags["tensor-parallel-size"] = (str(plan.tensor_parallel),)
    if plan.pipeline_parallel > 1:
        flags["pipeline-parallel-size"] = (str(plan.pipeline_parallel),)
    if plan.is_expert_parallel:
        flags["enable-expert-parallel"] = ()
    if plan.device == "cuda":
        # Without a fixed size vLLM measures what is left for the KV cache, within this share.
        flags["gpu-memory-utilization"] = (f"{plan.gpu_memory_utilization:.4f}",)
        if plan.is_kv_fixed:
            flags["kv-cache-memory-bytes"] = (str(plan.kv_cache_bytes),)
        return flags
    # Left alone, vLLM takes 92 % of the machine. VLLM_CPU_KVCACHE_SPACE would override this flag.
    flags["kv-cache-memory-bytes"] = (str(_kv_bytes(plan, launch)),)
    if launch.mode == "eager":
        flags["enforce-eager"] = ()
    return flags


def _kv_bytes(plan: Plan, launch: Launch) -> int:
    """A rehearsal needs room for one longest request, and a block or two."""
    if not launch.is_rehearsal:
        return plan.kv_cache_bytes
    one_request = plan.kv_cache_bytes * (plan.context_tokens + 512) // max(plan.kv_tokens, 1)
    return min(plan.kv_cache_bytes, one_request)


def _plan_env(plan: Plan, launch: Launch) -> dict[str, str]:
    env = {"VLLM_RPC_BASE_PATH": str(launch.scratch_dir)}
    if plan.device == "cuda":
        return env | {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order in which NVML counts
            "CUDA_VISIBLE_DEVICES": ",".join(plan.gpu_uuids or map(str, plan.gpus)),
        }
    groups = _groups(plan.cores, plan.tensor_parallel)
    # vLLM's "auto" keeps a core free for the rest: on two cores that is half of the machine.
    return env | {
        "VLLM_CPU_OMP_THREADS_BIND": "|".join(",".join(map(str, cores)) for cores in groups),
        "OMP_NUM_THREADS": str(len(groups[0])),
    }


def _groups(cores: Sequence[int], count: int) -> list[Sequence[int]]:
    """One share of the cores per rank, neighbours together."""
    size = max(1, len(cores) // count)
    return [cores[rank * size : (rank + 1) * size] for rank in range(count)]
