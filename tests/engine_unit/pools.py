"""A pool whose engines are fakes, and what tests ask about processes."""

import asyncio
import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from serve.catalog import ModelSpec
from serve.catalog.spec import License
from serve.engine.life import Engine
from serve.engine.pool import EnginePool, PoolConfig
from serve.engine.runtime import Runtime
from serve.plan import Plan, Subject
from serve.sources import DirSource

FAKE_HOST = (sys.executable, str(Path(__file__).parents[1] / "fakes" / "fake_host.py"))
NO_MEMORY = 0
GIB = 2**30


def fake_plan(name: str = "fake", **knobs: str | int | float) -> Plan:
    """A plan for the fake vLLM; `knobs` as in `tests/fakes/fake_vllm.py`."""
    spec = ModelSpec(
        name=name,
        family="fake",
        source=DirSource(Path("/nowhere")),
        license=License("MIT", "yes"),
        architecture="FakeForCausalLM",
        context_tokens=4096,
        parameters="0",
        engine_args=tuple((f"fake-{k.replace('_', '-')}", v) for k, v in knobs.items()),
    )
    return Plan(
        subject=Subject(spec, Path("/nowhere"), "00", GIB),
        device="cpu",
        gpus=(),
        cores=(0,),
        tensor_parallel=1,
        context_tokens=4096,
        kv_cache_bytes=GIB,
        kv_tokens=4096,
        gpu_memory_utilization=0.0,
        parts=(),
    )


def pool_config(home: Path, **changes: Any) -> PoolConfig:
    """A config that starts fakes, without spares and compiling unless asked for."""
    usual = PoolConfig(
        runtime=Runtime("fake-0.0.0-cpu", Path(sys.executable), "cpu", "0.0.0", 0),
        run_dir=home / "run",
        log_dir=home / "logs",
        cache_dir=home / "cache",
        spares=0,
        compile="off",
        start_timeout_s=30.0,
        environ=dict(os.environ),
        host=FAKE_HOST,
    )
    return dataclasses.replace(usual, **changes)


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """pytest's own folders have names too long for unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="ih"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.asynccontextmanager
async def fake_pool(**changes: Any) -> AsyncIterator[EnginePool]:
    """A running pool in a folder of its own; at the end no process of it may be there."""
    free_bytes = changes.pop("free_bytes", NO_MEMORY)
    before = set(psutil.Process().children(recursive=True))
    with short_folder() as home:
        async with EnginePool(pool_config(home, **changes), lambda: free_bytes) as pool:
            yield pool
        assert set(psutil.Process().children(recursive=True)) <= before
        assert list((home / "run" / "engines").iterdir()) == []


def family(engine: Engine) -> list[psutil.Process]:
    """All processes of an engine: outer guard, inner guard, host, and what the host started."""
    guard = psutil.Process(engine.pid)
    return [guard, *guard.children(recursive=True)]


async def are_gone(processes: list[psutil.Process], within_s: float) -> bool:
    """In a thread, so that the event loop can reap.

    What its parent left behind is reaped by the system's init when that likes: it counts as gone.
    """
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, within_s)
    return not [left for left in alive if not _is_zombie(left)]


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until(is_so: Callable[[], bool]) -> None:
    """Look again and again; the test's own timeout is the limit."""
    while not is_so():
        await asyncio.sleep(0.01)
