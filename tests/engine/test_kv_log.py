"""The planner's KV arithmetic against the real engine's own log, to the last token."""

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from serve.engine import Runtimes
from serve.geometry import read_geometry
from serve.hardware import read_machine
from serve.plan.kv import Pool, pool
from serve.plan.plan import Layout
from serve.plan.versions import rules
from serve.shape import Parallel
from tests.engine.kv_cases import CASES, LONG_OPTIONS, ON_TWO_RANKS, OPTIONS, REFUSED, Config

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

LOGGED = re.compile(
    r"KV cache size: ([\d,]+) tokens, Maximum concurrency for ([\d,]+) tokens per request: (\S+)x"
)
NEEDED = re.compile(r"\(([\d.]+) GiB KV cache is needed.*estimated maximum model length is (\d+)")
Found = dict[str, dict[str, Any]]
CPU = read_machine().cpu
# Elsewhere a CPU keeps the state of linear attention in 16 bit, which we do not plan with.
NEEDS_BF16 = {"qwen3-next"}


@pytest.fixture(scope="module")
def alone(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    refused = {f"refused {name}": (config, LONG_OPTIONS) for name, config in REFUSED.items()}
    return started(CASES | refused, home, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def paired(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    if len(CPU.cores) < 2:
        pytest.skip("two ranks want a core each")
    return started(ON_TWO_RANKS, home, tmp_path_factory.mktemp("paired"), ranks=2)


def started(
    cases: dict[str, tuple[Config, Config]], home: Path, folder: Path, ranks: int = 1
) -> Found:
    """What the engines found, by name, and `lines`: what they logged, equal ones once."""
    more = {"tensor_parallel_size": ranks}
    told = [
        {"name": name, "config": config, "options": OPTIONS | options | more}
        for name, (config, options) in cases.items()
    ]
    script, python = Path(__file__).with_name("log_kv.py"), Runtimes(home, None).find("cpu").python
    argv = [str(python), str(script), json.dumps(told), str(folder)]
    # Two ranks on one NUMA node have to be bound by hand.
    binding = {"VLLM_CPU_OMP_THREADS_BIND": "|".join(map(str, CPU.cores[:ranks]))}
    # Engines leave sockets behind, and those have short names only.
    with tempfile.TemporaryDirectory(prefix="ih") as scratch:
        env = os.environ | binding | {"TMPDIR": scratch}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=360)
    assert done.returncode == 0, done.stderr[-3000:]
    found = {each["name"]: each for each in map(json.loads, done.stdout.splitlines())}
    lines = set(LOGGED.findall(done.stderr))
    return {name: each | {"lines": lines} for name, each in found.items()}


def planned(config: Config, options: Config, ranks: int = 1) -> Pool:
    geometry = read_geometry(config, dtype=options.get("dtype"))
    kv_dtype = options.get("kv_cache_dtype", "auto")
    usual = rules(None).block_tokens(geometry, "cpu", kv_dtype, "amx_tile" in CPU.flags)
    layout = Layout(
        Parallel(ranks), options["max_model_len"], options["max_num_batched_tokens"],
        options["max_num_seqs"], kv_dtype, options.get("block_size", usual), 0.92, "0.32",
    )  # fmt: skip
    return pool(geometry, 0, layout, "cpu")


def skip_if_not_planned(name: str) -> None:
    if name in NEEDS_BF16 and "avx512_bf16" not in CPU.flags:
        pytest.skip("this CPU has no AVX-512 BF16")


def agrees(found: dict[str, Any], held: Pool, options: Config) -> None:
    n_bytes, context = options["kv_cache_memory_bytes"], options["max_model_len"]
    assert held.blocks_in(n_bytes) == found["blocks"]
    assert held.block_tokens == found["block_tokens"]
    assert held.tokens_in(n_bytes, context) == found["tokens"]
    assert held.concurrency_in(n_bytes, context) == found["concurrency"]
    shown = f"{found['tokens']:,}", f"{context:,}", f"{held.concurrency_in(n_bytes, context):.2f}"
    assert shown in found["lines"]


@pytest.mark.parametrize("name", CASES)
def test_tokens_and_concurrency_are_the_logged_ones(name: str, alone: Found) -> None:
    skip_if_not_planned(name)
    config, options = CASES[name]
    agrees(alone[name], planned(config, OPTIONS | options), OPTIONS | options)


@pytest.mark.parametrize("name", ON_TWO_RANKS)
def test_so_they_are_on_two_ranks(name: str, paired: Found) -> None:
    config, options = ON_TWO_RANKS[name]
    agrees(paired[name], planned(config, OPTIONS | options, ranks=2), OPTIONS | options)


@pytest.mark.parametrize("name", REFUSED)
def test_the_refusal_names_our_need_and_our_longest_context(name: str, alone: Found) -> None:
    skip_if_not_planned(name)
    told = OPTIONS | LONG_OPTIONS
    held = planned(REFUSED[name], told)
    said = NEEDED.search(alone[f"refused {name}"]["refusal"])
    assert said is not None
    context, n_bytes = told["max_model_len"], told["kv_cache_memory_bytes"]
    needed = held.bytes_for(context) - held.spare_blocks * held.bytes_per_block
    assert f"{round(needed / 2**30, 2)}" == said[1]
    assert held.longest_context(n_bytes, context) == int(said[2])
