"""Several engines of one model, with real guards and fake engines."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from serve.catalog import load_catalog
from serve.errors import UnknownModel
from serve.fleet import FleetConfig
from serve.fleet.shares import Seat
from serve.fleet.starts import Starts
from serve.plan import Plan, Wishes
from serve.quota import Limits, Price, Tenant
from serve.roster import Roster
from serve.settings import ModelTerms
from tests.fleet.houses import MACHINE, fleet, short_folder, store_at, write_catalog
from tests.fleet.upstreams import until

TERMS = ModelTerms("small-alias", replicas=2, price=Price(5), limits=Limits(tpm=9))


def in_house(check: Callable[[Path], Coroutine[Any, Any, None]]) -> None:
    with short_folder() as home:
        asyncio.run(check(home))


def bound_to(home: Path) -> dict[str, list[int]]:
    """The cores of every engine, as they are written beside their sockets."""
    records = (home / "run" / "engines").glob("*/engine.json")
    told = [json.loads(record.read_text()) for record in records]
    return {each["replica"]: each["plan"]["cores"] for each in told}


def test_each_replica_has_an_engine_and_cores_of_its_own(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        catalog = write_catalog(tmp_path, small={})
        tenants = (Tenant("t", 3),)
        async with fleet(home, catalog, models=(TERMS,), tenants=tenants) as made:
            first = await made.load("small")
            assert first.replica == "small-0"
            roster = made.roster()
            assert roster.tenants == tenants
            (model,) = roster.models
            assert [replica.id for replica in model.replicas] == ["small-0", "small-1"]
            assert len({replica.address for replica in model.replicas}) == 2
            assert all(replica.kv_tokens > 0 for replica in model.replicas)
            assert (model.price, model.limits) == (Price(5), Limits(tpm=9))
            assert bound_to(home) == {"small-0": [0], "small-1": [1]}
            statuses = made.status()
            await made.unload("small")
            assert made.status() == ()
            assert not any(psutil.pid_exists(status.pid or 0) for status in statuses)

    in_house(check)


def test_a_model_is_ready_while_one_of_its_replicas_is(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        catalog = write_catalog(tmp_path, small={})
        async with fleet(home, catalog, models=(TERMS,)) as made:
            await made.load("small")
            before = made.roster().models[0].replicas
            victim = made.status()[0]
            assert victim.pid is not None
            os.kill(victim.pid, signal.SIGKILL)
            alone = await until(made, lambda model: len(model.replicas) == 1)
            assert alone.models[0].state == "ready"
            assert alone.models[0].replicas == before[1:]
            both: Roster = await until(made, lambda model: len(model.replicas) == 2)
            again = both.models[0].replicas
            assert again[1] == before[1]
            assert again[0].id == before[0].id and again[0].address != before[0].address
            assert [status.restarts for status in made.status()] == [1, 0]

    in_house(check)


def test_what_does_not_start_leaves_the_others_and_is_tried_anew_when_asked(
    tmp_path: Path,
) -> None:
    """The first replica finds a file that it needs; the second one finds it gone."""

    def let_one_pass() -> None:
        with says.open("w"):  # the first one reads
            says.unlink()

    async def check(home: Path) -> None:
        os.mkfifo(says)
        catalog = write_catalog(tmp_path, small={"says": str(says)})
        async with fleet(home, catalog, models=(TERMS,)) as made:
            loading = asyncio.create_task(made.load("small"))
            await asyncio.to_thread(let_one_pass)
            assert (await loading).state == "ready"
            assert [status.state for status in made.status()] == ["ready", "quarantined"]
            assert made.status()[1].problem is not None
            (model,) = made.roster().models
            assert (model.state, len(model.replicas)) == ("ready", 1)
            says.write_text("")
            assert (await made.load("small")).replica == "small-0"
            assert [status.state for status in made.status()] == ["ready", "ready"]
            assert len(made.roster().models[0].replicas) == 2

    says = tmp_path / "says"
    in_house(check)


class LeftBehind:
    """An engine that outlived its supervisor."""

    def __init__(self, replica: str, plan: Plan) -> None:
        self.replica, self.plan, self.is_stopped = replica, plan, False

    async def stop(self, grace_s: float) -> None:
        self.is_stopped = True


class Pool:
    """Finds `left`, starts nothing."""

    def __init__(self) -> None:
        self.left: list[LeftBehind] = []
        self.started: list[tuple[str, tuple[int, ...]]] = []

    async def adopt(self) -> list[LeftBehind]:
        return self.left

    async def start(self, plan: Plan, replica: str) -> LeftBehind:
        self.started.append((replica, plan.cores))
        return LeftBehind(replica, replace(plan, key=None))

    def strangers(self, gpus: object) -> tuple[str, ...]:
        return ()


def test_survivors_are_taken_over_replica_by_replica(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        spec = load_catalog(write_catalog(tmp_path, small={})).find("small")
        pool = Pool()
        config = FleetConfig(Wishes(), None, 1.0)
        starts = Starts(config, store_at(home), cast(Any, pool), lambda: MACHINE)
        seats = [Seat(f"small-{n}", n, 2) for n in range(2)]
        plans = [await starts.prepare(spec, seat) for seat in seats]
        assert [plan.cores for plan in plans] == [(0,), (1,)]
        pool.left = [
            LeftBehind(seat.replica, plan) for seat, plan in zip(seats, plans, strict=True)
        ]
        pool.left.append(LeftBehind("other-0", plans[0]))
        await starts.adopt(seat.replica for seat in seats)
        assert [engine.is_stopped for engine in pool.left] == [False, False, True]
        first, second, _ = pool.left
        assert cast(Any, await starts.start(spec, seats[0], plans[0])) is first
        # One replica from now on: an engine with one core is not what would be started.
        alone = Seat("small-1")
        plan = await starts.prepare(spec, alone)
        assert plan.cores == (0, 1)
        assert cast(Any, await starts.start(spec, alone, plan)) is not second
        assert second.is_stopped and pool.started == [("small-1", (0, 1))]

    in_house(check)


def test_terms_of_a_model_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        catalog = write_catalog(tmp_path, small={})
        with pytest.raises(UnknownModel):
            async with fleet(home, catalog, models=(ModelTerms("smal"),)):
                pass

    in_house(check)
