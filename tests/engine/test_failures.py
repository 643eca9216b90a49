"""Starts of the real vLLM that fail on purpose: the first cause is named, and what can be is cured.

Tiny models of random weights; most of these starts end before any weights are read.
"""

import asyncio
import contextlib
import dataclasses
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from serve.catalog import load_catalog
from serve.engine import EnginePool, PoolConfig
from serve.engine.life import Engine
from serve.engine.orphans import Home, is_ours
from serve.engine.runtime import Runtime
from serve.errors import StartFailed
from serve.fleet.curing import Curing
from serve.plan import Plan, Subject, Wishes
from serve.profiles import Lessons
from serve.shipped import shipped
from tests.engine.pools import Turns, config_of
from tests.engine.stack import STARTER

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]

MODEL = "LlamaForCausalLM"
MIB = 2**20
# The host alone takes 0.7 GB when it has imported vLLM.
TOO_LITTLE_BYTES = 800 * MIB
CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture(scope="module")
def model(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with the starter's tokenizer, made for 8,192 tokens."""
    made = shutil.copytree(models / MODEL, tmp_path_factory.mktemp("tiny") / MODEL)
    _edit_config(made, max_position_embeddings=8192)
    return made


def _plan(folder: Path, **changes: Any) -> Plan:
    """By hand: the planner would refuse most of it."""
    spec = dataclasses.replace(load_catalog().find(STARTER), name="tiny", engine_args=())
    plan = Plan(
        subject=Subject(spec, folder, "00", 25 * MIB), device="cpu", gpus=(), cores=(0, 1),
        tensor_parallel=1, context_tokens=512, kv_cache_bytes=64 * MIB, kv_tokens=0,
        gpu_memory_utilization=0.0, parts=(),
    )  # fmt: skip
    return dataclasses.replace(plan, **changes)


def _fails(turns: Turns, plan: Plan) -> StartFailed:
    with pytest.raises(StartFailed) as caught:
        turns.loop.run(next(turns).pool.start(plan, "tiny-0"))
    return caught.value


def test_a_context_beyond_the_models(turns: Turns, model: Path) -> None:
    failed = _fails(turns, _plan(model, context_tokens=100_000))
    assert failed.cause == ("a context of 100000 tokens was asked for, the model was made for 8192")
    assert failed.remedy == "set engine.context to 8192 or less"


def test_an_architecture_that_nobody_knows(turns: Turns, model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "unknown")
    _edit_config(folder, architectures=["NoSuchForCausalLM"])
    failed = _fails(turns, _plan(folder))
    assert failed.cause == "this vLLM does not know the architecture NoSuchForCausalLM"
    assert failed.remedy is not None and "newer vLLM" in failed.remedy


def test_a_shard_that_is_missing(turns: Turns, model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "shards")
    _name_two_shards(folder)
    failed = _fails(turns, _plan(folder))
    assert "model-00002-of-00002.safetensors" in failed.cause
    assert failed.remedy == "remove the model and pull it again"


def test_a_number_format_that_there_is_not(turns: Turns, model: Path) -> None:
    failed = _fails(turns, _plan(model, dtype="int8"))
    assert failed.cause.startswith("vLLM refuses a flag: argument --dtype: invalid choice: 'int8'")


def test_a_socket_that_is_taken(turns: Turns, model: Path) -> None:
    turn = next(turns)

    async def start() -> Engine:
        while turn.pool.spares == 0:  # the next engine's folder is that of the spare
            await asyncio.sleep(0.05)
        (folder,) = (turn.run / "engines").iterdir()
        (folder / "engine.sock").touch()
        return await turn.pool.start(_plan(model), "tiny-0")

    with pytest.raises(StartFailed) as caught:
        turns.loop.run(start())
    assert caught.value.cause == "the engine's socket is taken"


def test_a_kv_cache_that_is_too_small_is_cured_by_a_shorter_context(
    turns: Turns, model: Path, tmp_path: Path
) -> None:
    """64 KiB hold a block of 128 tokens; with 40 of them a context of 8,192 has no room. The engine
    that starts at last proves something else: its children's titles hide their environment."""
    loop, run = turns.loop, (turn := next(turns)).run
    plan = _plan(model, context_tokens=8192, kv_cache_bytes=40 * 65536)
    wished: list[Wishes] = []

    async def replan(wishes: Wishes) -> Plan:
        wished.append(wishes)
        assert wishes.context_tokens is not None
        return dataclasses.replace(plan, context_tokens=wishes.context_tokens)

    curing = Curing(Wishes(), Lessons(tmp_path / "lessons.json"))
    engine = loop.run(curing.start(lambda p: turn.pool.start(p, "tiny-0"), plan, replan))
    assert len(wished) == 1 and 4096 <= engine.plan.context_tokens <= 40 * 128
    assert engine.plan.note is not None and "instead of 8k" in engine.plan.note
    below = psutil.Process(engine.pid).children(recursive=True)
    children = [process for process in below if "VLLM::" in " ".join(process.cmdline())]
    assert children
    ours, others = Home(run.resolve(), (run / "logs").resolve()), Home(Path("/x"), Path("/y"))
    assert all(is_ours(child.pid, ours) for child in children)
    assert not any(is_ours(child.pid, others) for child in children)
    loop.run(engine.stop(2))


def test_a_machine_with_too_little_memory(
    runtime: Runtime, cache: Path, model: Path, short_dir: Path
) -> None:
    """Under a limit of a cgroup where one can be made (the kernel kills), else under RLIMIT_DATA
    (an allocation fails)."""
    host = (str(runtime.python), str(shipped("inside/host.py")), "cpu")

    async def start(config: PoolConfig, plan: Plan) -> None:
        async with EnginePool(config) as pool:
            await pool.start(plan, "tiny-0")

    with _limit(short_dir) as (prefix, causes, kv_bytes):
        config = config_of(runtime, cache, short_dir / "run", spares=0, host=(*prefix, *host))
        with pytest.raises(StartFailed) as caught:
            asyncio.run(start(config, _plan(model, kv_cache_bytes=kv_bytes)))
    failed = caught.value
    assert failed.cause in causes
    assert failed.remedy == "set a smaller engine.kv_cache, or choose a smaller model"


@contextlib.contextmanager
def _limit(folder: Path) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], int]]:
    """What to put before a program, the causes that follow, and a KV cache to ask for."""
    killed = "the kernel killed a process of the engine, most likely for lack of memory"
    ran_out = "the machine's memory ran out"
    v1, v2 = CGROUPS / "memory", CGROUPS
    parent, limit = (v1, "memory.limit_in_bytes") if v1.is_dir() else (v2, "memory.max")
    group = parent / f"inhouse-test-{folder.name}"
    try:
        group.mkdir()
        (group / limit).write_text(str(TOO_LITTLE_BYTES))
    except OSError:  # not ours to make, or without this controller
        with contextlib.suppress(OSError):
            group.rmdir()
        yield ("prlimit", "--data=3000000000"), (ran_out,), 6_000_000_000
        return
    script = f'echo 0 >{group}/cgroup.procs; exec "$@"'
    try:
        yield ("/bin/sh", "-c", script, "sh"), (killed, ran_out), 64 * MIB
    finally:
        group.rmdir()


def _edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _name_two_shards(folder: Path) -> None:
    """The whole file becomes the first of two; the index names both."""
    whole = folder / "model.safetensors"
    content = whole.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    names = [name for name in json.loads(content[8 : 8 + length]) if name != "__metadata__"]
    first, second = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    whole.rename(folder / first)
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, first) | {names[-1]: second}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
