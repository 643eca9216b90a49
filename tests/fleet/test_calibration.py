"""What a launch measured is kept, and the next plan takes it."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.errors import StartFailed
from serve.fleet import Fleet
from serve.hardware import Gpu, Machine
from serve.plan import Wishes
from serve.profiles import Profile, ProfileBook
from tests.engine_unit.test_measured import STARTS
from tests.fleet.houses import GIB, MACHINE, fleet, short_folder, write_catalog

CARD = Gpu(0, "GPU-a", "Test Card", 16 * GIB, 15 * GIB, (9, 0))
WITH_CARD = Machine(MACHINE.cpu, gpus=(CARD,))
ON_CARD: dict[str, Any] = {"wishes": Wishes(device="cuda"), "machine": WITH_CARD}


def in_house(check: Callable[[Path], Coroutine[Any, Any, None]]) -> None:
    with short_folder() as home:
        asyncio.run(check(home))


def kept(home: Path) -> tuple[Profile, ...]:
    return ProfileBook(home / "profiles").all()


async def launched(made: Fleet) -> dict[str, str]:
    """Load the only model; the flags of its engine."""
    status = await made.load("small")
    transport = httpx.AsyncHTTPTransport(uds=status.socket)
    async with httpx.AsyncClient(transport=transport, base_url="http://e") as client:
        flags: dict[str, str] = (await client.get("/fake/info")).json()["flags"]
    await made.unload("small")
    return flags


def test_a_launch_is_kept_under_what_it_was_launched_as(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        async with fleet(home, write_catalog(tmp_path, small={})) as made:
            status = await made.load("small")
            (profile,) = kept(home)
            assert (profile.model, profile.outcome) == ("small", "ready")
            assert profile.ready_after_s == status.ready_after_s
            assert profile.measured_at == status.started_at
            assert (profile.key.device, profile.key.engine_version) == ("test", "0.32")
            assert (profile.kv_blocks, profile.block_tokens) == (728, 128)
            assert profile.kv_tokens == 93_184

    in_house(check)


def test_the_second_launch_on_a_card_is_told_what_the_first_one_measured(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        catalog = write_catalog(tmp_path, small={"says": str(STARTS / "one-card.txt")})
        async with fleet(home, catalog, **ON_CARD) as made:
            first = await launched(made)
            assert "kv-cache-memory-bytes" not in first
            (profile,) = kept(home)
            assert profile.key.device == "Test Card 16384MiB"
            assert profile.available_kv_bytes == round(3.01 * GIB)
            told = [int((await launched(made))["kv-cache-memory-bytes"]) for _ in range(3)]
            assert len(set(told)) == 1
            budget, measured = profile.budget_bytes, profile.available_kv_bytes
            # The excerpt is of a smaller card: what its engine took beside the cache counts.
            assert budget is not None
            utilization = float(first["gpu-memory-utilization"])
            left = utilization * CARD.total_bytes - (budget - measured)
            assert 0 <= left - told[0] <= 0.01 * GIB
            assert len(kept(home)) == 4 and kept(home)[0].available_kv_bytes is None

    in_house(check)


def test_what_else_the_engine_is_told_makes_it_another_launch(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        catalog = write_catalog(tmp_path, small={"says": str(STARTS / "one-card.txt")})
        async with fleet(home, catalog, **ON_CARD) as made:
            await launched(made)
        async with fleet(home, catalog, engine_args=("--enable-lora",), **ON_CARD) as made:
            assert "kv-cache-memory-bytes" not in await launched(made)
            assert "kv-cache-memory-bytes" in await launched(made)
        assert len({profile.key for profile in kept(home)}) == 2

    in_house(check)


def test_a_measured_cache_that_is_too_large_by_now_is_measured_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(home: Path) -> None:
        knobs = {"die_told": "graphs", "says": str(STARTS / "one-card.txt")}
        catalog = write_catalog(tmp_path, small=knobs)
        async with fleet(home, catalog, **ON_CARD) as made:
            await launched(made)
            (first,) = kept(home)
            assert "kv-cache-memory-bytes" not in await launched(made)
            (second,) = kept(home)
            assert second.measured_at > first.measured_at and second.key == first.key
        assert "measuring anew" in caplog.text

    in_house(check)


def test_a_cache_that_was_wished_is_not_doubted(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        knobs = {"die_told": "graphs", "says": str(STARTS / "one-card.txt")}
        catalog = write_catalog(tmp_path, small=knobs)
        async with fleet(home, catalog, **ON_CARD) as made:
            await launched(made)
        wishes = Wishes(
            device="cuda", kv_cache_bytes=GIB, gpu_memory_utilization=0.9, max_num_seqs=256
        )
        async with fleet(home, catalog, wishes=wishes, machine=WITH_CARD) as made:
            with pytest.raises(StartFailed):
                await made.load("small")

    in_house(check)


def test_a_start_that_failed_tells_what_it_had(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        knobs = {"die_loading": "context", "says": str(STARTS / "refused.txt")}
        catalog = write_catalog(tmp_path, small=knobs)
        wishes = Wishes(device="cuda", context_tokens=2048)
        async with fleet(home, catalog, wishes=wishes, machine=WITH_CARD) as made:
            with pytest.raises(StartFailed):
                await made.load("small")
        profile = kept(home)[0]
        assert (profile.outcome, profile.ready_after_s) == ("failed", None)
        # vLLM's own figure, and then what the error says: the least that it had.
        assert profile.available_kv_bytes == round(4.12 * GIB)

    in_house(check)


def test_a_start_that_failed_and_says_nothing_is_not_kept(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        catalog = write_catalog(tmp_path, small={"die_loading": "architecture"})
        async with fleet(home, catalog) as made:
            with pytest.raises(StartFailed):
                await made.load("small")
        assert kept(home) == ()

    in_house(check)


def test_a_launch_is_no_worse_for_a_book_that_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(home: Path) -> None:
        (home / "profiles").write_text("in the way")
        async with fleet(home, write_catalog(tmp_path, small={})) as made:
            assert (await made.load("small")).state == "ready"
        assert "not kept" in caplog.text

    in_house(check)


def test_a_damaged_book_is_no_hindrance(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        async with fleet(home, write_catalog(tmp_path, small={})) as made:
            await launched(made)
            (file,) = (home / "profiles").glob("*.json")
            file.write_text(json.dumps({"format": 99}))
            await launched(made)
            assert len(kept(home)) == 1

    in_house(check)
