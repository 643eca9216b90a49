"""The fleet, with real guards and fake engines."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from serve.catalog import load_catalog
from serve.errors import (
    ModelNotServed,
    ShuttingDown,
    StartFailed,
    UnknownModel,
    WeightsDamaged,
)
from serve.plan import Wishes
from serve.wire import from_wire
from tests.fakes.tiny import llama_file
from tests.fleet.houses import CONFIG, fleet, short_folder, state_is, store_at, write_catalog


def test_a_model_is_loaded_once_for_all_who_ask(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        catalog = write_catalog(tmp_path, small={"load_s": 0.2})
        async with fleet(home, catalog) as made:
            statuses = await asyncio.gather(*(made.load(n) for n in ("small", "small-alias") * 5))
            assert len({status.pid for status in statuses}) == 1
            (model,) = made.roster().models
            assert (model.name, model.aliases, model.state) == ("small", ("small-alias",), "ready")
            assert model.context_tokens == 2048
            assert model.replicas[0].address == f"unix:{statuses[0].socket}"
            assert [key.id for key in made.roster().keys] == ["k"]

    _in_house(check)


def test_what_fails_at_the_first_start_is_raised_and_not_wanted_any_more(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        catalog = write_catalog(tmp_path, bad={"die_loading": "oom"})
        async with fleet(home, catalog) as made:
            with pytest.raises(StartFailed) as failed:
                await made.load("bad")
            assert "core initialization failed" not in failed.value.cause.lower()
            assert made.status() == ()
            assert made.roster().models == ()
            with pytest.raises(UnknownModel) as unknown:
                await made.load("badd")
            assert unknown.value.near

    _in_house(check)


def test_an_engine_that_is_killed_comes_back_with_another_socket(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        async with fleet(home, write_catalog(tmp_path, small={})) as made:
            before = await made.load("small")
            assert before.pid is not None
            os.kill(before.pid, signal.SIGKILL)
            await state_is(made, "restarting")
            await state_is(made, "ready")
            (after,) = made.status()
            assert (after.restarts, after.problem) == (1, None)
            assert after.socket != before.socket
            assert not psutil.pid_exists(before.pid)

    _in_house(check)


def test_an_engine_that_keeps_dying_is_quarantined_and_tried_when_asked(
    tmp_path: Path,
) -> None:
    async def check(home: Path) -> None:
        async with fleet(home, write_catalog(tmp_path, frail={"die_after_s": 0.1})) as made:
            first = await made.load("frail")
            await state_is(made, "quarantined")
            (status,) = made.status()
            assert status.restarts == 4
            assert status.problem is not None
            assert type(from_wire(status.problem)).__name__ == "Quarantined"
            again = await made.load("frail")
            assert again.state == "ready" and again.pid != first.pid

    _in_house(check)


def test_a_value_that_is_ours_to_choose_is_changed_where_a_start_fails_for_it(
    tmp_path: Path,
) -> None:
    """Once: the next life, and the next load, begin with what helped."""

    async def check(home: Path) -> None:
        catalog = write_catalog(tmp_path, small={"longest_context": 3000, "context": 4096})
        async with fleet(home, catalog) as made:
            status = await made.load("small")
            assert (status.state, status.context_tokens) == ("ready", 3000)
            assert status.note == "context of 3,000 tokens instead of 4k"
            assert made.roster().models[0].context_tokens == 3000
            assert len(_logs(home)) == 2
            assert status.pid is not None
            os.kill(status.pid, signal.SIGKILL)
            await state_is(made, "restarting")
            await state_is(made, "ready")
            assert made.status()[0].context_tokens == 3000
            assert len(_logs(home)) == 3
            await made.unload("small")
            assert (await made.load("small")).context_tokens == 3000
            assert len(_logs(home)) == 4

    _in_house(check)


def test_a_value_that_the_operator_chose_is_not_changed(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        catalog = write_catalog(tmp_path, small={"longest_context": 3000, "context": 4096})
        async with fleet(home, catalog, wishes=Wishes(context_tokens=3500)) as made:
            with pytest.raises(StartFailed):
                await made.load("small")
            assert len(_logs(home)) == 1

    _in_house(check)


def _logs(home: Path) -> list[Path]:
    """One for each start of an engine."""
    return list((home / "logs").glob("small-0@*.log"))


def test_damaged_weights_are_refused_and_nothing_is_wanted(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        catalog = write_catalog(tmp_path, small={})
        async with fleet(home, catalog) as made:
            await made.load("small")
            await made.unload("small")
            _damage(tmp_path / "small")
            for _ in range(2):
                with pytest.raises(WeightsDamaged) as refused:
                    await made.load("small")
                assert refused.value.file == "tokenizer.json"
            assert made.status() == () and made.roster().models == ()

    _in_house(check)


def test_weights_that_are_damaged_while_they_are_served(tmp_path: Path) -> None:
    """The engine goes on; when it dies it is not started again, until somebody has acted."""

    async def check(home: Path) -> None:
        catalog = write_catalog(tmp_path, small={})
        async with fleet(home, catalog) as made:
            before = await made.load("small")
            _damage(tmp_path / "small")
            assert before.pid is not None
            os.kill(before.pid, signal.SIGKILL)
            await state_is(made, "quarantined")
            (status,) = made.status()
            assert status.problem is not None and status.restarts == 1
            assert isinstance(from_wire(status.problem), WeightsDamaged)
            with pytest.raises(WeightsDamaged):
                await made.load("small")
            store_at(home).pull(load_catalog(catalog).find("small"))
            assert (await made.load("small")).state == "ready"

    _in_house(check)


def test_an_engine_gets_a_view_of_the_weights(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        catalog = write_catalog(tmp_path, small={})
        async with fleet(home, catalog) as made:
            await made.load("small")
            (weights,) = store_at(home).list()
            assert weights.used_at is not None
            assert sorted(path.name for path in weights.view.iterdir()) == [
                "config.json", "model.safetensors", "tokenizer.json",
            ]  # fmt: skip

    _in_house(check)


def test_unloading_ends_the_engine(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        async with fleet(home, write_catalog(tmp_path, small={})) as made:
            status = await made.load("small")
            await made.unload("small-alias")
            assert status.pid is not None and not psutil.pid_exists(status.pid)
            assert made.roster().models == ()
            with pytest.raises(ModelNotServed):
                await made.unload("small")

    _in_house(check)


def test_unloading_while_loading_leaves_nothing(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        async with fleet(home, write_catalog(tmp_path, slow={"load_s": 60})) as made:
            loading = asyncio.create_task(made.load("slow"))
            while not made.status():
                await asyncio.sleep(0.01)
            await made.unload("slow")
            with pytest.raises(ModelNotServed):
                await loading

    _in_house(check)


def test_a_caller_who_leaves_does_not_end_the_load(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        async with fleet(home, write_catalog(tmp_path, small={"load_s": 0.5})) as made:
            impatient = asyncio.create_task(made.load("small"))
            patient = asyncio.create_task(made.load("small"))
            while not made.status():
                await asyncio.sleep(0.01)
            impatient.cancel()
            assert (await patient).state == "ready"

    _in_house(check)


def test_a_draining_fleet_takes_nothing_new(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        async with fleet(home, write_catalog(tmp_path, small={})) as made:
            made.refuse_new()
            assert made.roster().is_draining
            with pytest.raises(ShuttingDown):
                await made.load("small")

    _in_house(check)


def _damage(weights: Path) -> None:
    (weights / "tokenizer.json").write_text("[]")


def _in_house(check: Any) -> None:
    with short_folder() as home:
        asyncio.run(check(home))


def test_headers_that_we_read_otherwise_are_the_engine_s_to_judge(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def check(home: Path) -> None:
        catalog = write_catalog(tmp_path, small={})
        other = llama_file({**CONFIG, "intermediate_size": 256})
        (tmp_path / "small" / "model.safetensors").write_bytes(other)
        async with fleet(home, catalog) as made:
            assert (await made.load("small")).state == "ready"
        assert "planned by config.json alone" in caplog.text
        assert "intermediate_size" in caplog.text

    with short_folder() as home:
        asyncio.run(check(home))
