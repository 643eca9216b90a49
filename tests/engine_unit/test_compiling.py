"""Compiled forms: when they are prepared, when not, and what makes one unusable."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from serve.engine.command import cpu_flags
from serve.engine.compiling import find_cxx, program_key
from serve.engine.flags import to_argv
from tests.engine_unit.pools import FAKE_HOST, GIB, fake_plan, fake_pool

pytestmark = pytest.mark.skipif(find_cxx() is None, reason="compiling needs g++")

# What vLLM logs when the program is on disk.
SAYS_SAVED = ("/bin/sh", "-c", 'echo "saved AOT compiled function to x"; exec "$@"', "sh")
FLAGS = {"model": ("/w",), "max-model-len": ("4096",), "enable-x": ()}
ENV = {"VLLM_CPU_OMP_THREADS_BIND": "0,1"}


def key(
    flags: dict[str, tuple[str, ...]] = FLAGS,
    env: dict[str, str] = ENV,
    digest: str = "d",
    cpu: str = "avx512f",
) -> str:
    return program_key(to_argv(flags), env, digest, cpu)


def test_a_program_is_of_its_model_limits_threads_and_cpu() -> None:
    others = [
        key(FLAGS | {"model": ("/v",)}),
        key(FLAGS | {"max-model-len": ("8192",)}),
        key(FLAGS | {"dtype": ("half",)}),
        key(env={"VLLM_CPU_OMP_THREADS_BIND": "0"}),
        key(digest="e"),
        key(cpu="avx2"),
    ]
    assert len({key(), *others}) == len(others) + 1


def test_socket_and_kv_cache_do_not_matter_to_a_program() -> None:
    assert key(FLAGS | {"uds": ("/a",), "kv-cache-memory-bytes": ("1",)}) == key()
    assert key(env=ENV | {"VLLM_RPC_BASE_PATH": "/x"}) == key()


def test_flags_of_this_cpu_are_read_in_any_order(tmp_path: Path) -> None:
    assert cpu_flags() != ""
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nflags\t: b a\n\nprocessor : 1\nflags\t: b a\n")
    assert cpu_flags(info) == "a b"
    info.write_text("processor : 0\n")
    assert cpu_flags(info) == ""


def test_a_first_start_prepares_the_next_one() -> None:
    async def main() -> None:
        host = (*SAYS_SAVED, *FAKE_HOST)
        async with fake_pool(compile="auto", free_bytes=64 * GIB, host=host) as pool:
            plan = fake_plan()
            first = await pool.start(plan, "a")
            compiler = pool._compiler
            assert (first.mode, compiler.mode(plan)) == ("eager", "eager")
            await asyncio.gather(*compiler._tasks.values())
            assert compiler.mode(plan) == "compiled"
            assert compiler.mode(replace(plan, context_tokens=2048)) == "eager"
            second = await pool.start(plan, "b")
            assert second.mode == "compiled"
            compiler.prepare_later(plan)
            assert not compiler._tasks
            compiler.forget(plan)
            assert compiler.mode(plan) == "eager"

    asyncio.run(main())


def test_without_vllms_word_nothing_counts_as_prepared() -> None:
    async def main() -> None:
        async with fake_pool(compile="auto", free_bytes=64 * GIB) as pool:
            plan = fake_plan()
            pool._compiler.prepare_later(plan)
            await asyncio.gather(*pool._compiler._tasks.values())
            assert pool._compiler.mode(plan) == "eager"

    asyncio.run(main())


def test_what_cannot_be_prepared_is_known_before(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with fake_pool(compile="auto", free_bytes=GIB) as pool:
            compiler, plan = pool._compiler, fake_plan()
            assert "memory" in str(compiler.obstacle(plan))
            on_gpu = replace(plan, device="cuda", gpus=(0,), cores=())
            assert "CPU" in str(compiler.obstacle(on_gpu))
            assert compiler.mode(on_gpu) == "compiled"
            with caplog.at_level("INFO"):
                compiler.prepare_later(plan)
            assert not compiler._tasks

    asyncio.run(main())
    assert "not compiled" in caplog.text


def test_leaving_ends_a_preparation_that_is_under_way() -> None:
    async def main() -> None:
        async with fake_pool(compile="auto", free_bytes=64 * GIB) as pool:
            plan = fake_plan(load_s=60)
            pool._compiler.prepare_later(plan)
            await asyncio.sleep(0)
            assert len(pool._compiler._tasks) == 1
        assert not pool._compiler._tasks

    asyncio.run(main())
