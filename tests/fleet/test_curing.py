"""Starts that fail for a value that is ours to choose, and what is remembered of them."""

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from serve.engine.life import Engine
from serve.errors import DoesNotFit, SettingsError, StartFailed
from serve.fleet.curing import Curing, cure
from serve.plan import Plan, Wishes
from serve.profiles import Lessons
from tests.engine_unit.pools import fake_plan, fake_pool
from tests.fleet.houses import fleet, short_folder, write_catalog

CARD = dataclasses.replace(
    fake_plan(), device="cuda", gpus=(0,), cores=(), gpu_memory_utilization=0.92,
    max_num_seqs=1024, max_num_batched_tokens=8192, device_name="H100",
)  # fmt: skip
CONTEXT = ("context", "4096", "3.50", "2.00", "3072")


@pytest.mark.parametrize(
    ("finding", "plan", "expected"),
    [
        (CONTEXT, CARD, ("context_tokens", 3072)),
        (CONTEXT, fake_plan(), ("context_tokens", 3072)),
        (("context_v0", "4096", "3664"), CARD, ("context_tokens", 3664)),
        (("context", "4096", "3.50", "2.00", "512"), CARD, None),  # too little to be of use
        (("context", "4096", "3.50", "2.00", "4096"), CARD, None),  # no change
        (("gpu_busy", "59.32", "79.15", "0.92"), CARD, ("gpu_memory_utilization", 0.73)),
        (("gpu_busy", "2.0", "79.15", "0.92"), CARD, None),
        (("gpu_busy", "79.0", "79.15", "0.92"), CARD, None),  # more than was asked for
        (("after_kv", ""), CARD, ("gpu_memory_utilization", 0.87)),
        (("sampler", "1024"), CARD, ("max_num_seqs", 512)),
        (("sampler", "8"), CARD, None),
        (("no_kv",), CARD, ("max_num_seqs", 512)),
        (("no_kv",), dataclasses.replace(CARD, max_num_seqs=None), ("max_num_seqs", 128)),
        (("no_kv",), fake_plan(), None),  # on a CPU there is no sampler's peak to lower
        (("profile", "2.00 GiB"), CARD, ("max_num_batched_tokens", 4096)),
        (("profile", ""), dataclasses.replace(CARD, max_num_batched_tokens=512), None),
        ((), CARD, None),
        (("unheard-of", "1"), CARD, None),
    ],
)
def test_the_change_that_a_failure_asks_for(
    finding: tuple[str, ...], plan: Plan, expected: tuple[str, float] | None
) -> None:
    step = cure(finding, plan, Wishes())
    assert (step and (step.field, step.value)) == expected


@pytest.mark.parametrize(
    ("finding", "wishes"),
    [
        (CONTEXT, Wishes(context_tokens=4096)),
        (("gpu_busy", "59.32", "79.15", "0.92"), Wishes(gpu_memory_utilization=0.92)),
        (("after_kv", ""), Wishes(gpu_memory_utilization=0.92)),
        (("sampler", "1024"), Wishes(max_num_seqs=1024)),
        (("no_kv",), Wishes(max_num_seqs=1024)),
        (("profile", ""), Wishes(max_num_batched_tokens=8192)),
    ],
)
def test_what_the_operator_chose_is_never_changed(finding: tuple[str, ...], wishes: Wishes) -> None:
    assert cure(finding, CARD, Wishes()) is not None
    assert cure(finding, CARD, wishes) is None


def test_an_engine_starts_with_the_context_that_there_is_room_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Real guards and a fake vLLM that says what vLLM says."""
    lessons = Lessons(tmp_path / "lessons.json")

    def make(wishes: Wishes) -> Plan:
        plan = fake_plan("m", longest_context=3000)
        return dataclasses.replace(plan, context_tokens=wishes.context_tokens or 4096)

    async def replan(wishes: Wishes) -> Plan:
        return make(wishes)

    async def scenario() -> None:
        async with fake_pool() as pool:
            curing = Curing(Wishes(), lessons)
            with caplog.at_level(logging.INFO, logger="serve.fleet"):
                engine = await curing.start(lambda p: pool.start(p, "m"), make(Wishes()), replan)
            assert engine.plan.context_tokens == 3000
            assert engine.plan.note == "context of 3,000 tokens instead of 4k"
            assert "once more with another value" in caplog.text
            await engine.stop(0)
            taught = Curing(Wishes(), lessons).plan(make)
            assert taught.context_tokens == 3000
            assert taught.note == "as earlier starts have taught: context_tokens=3000"
            begun: list[int] = []
            await curing.start(_counting(lambda p: pool.start(p, "m"), begun), taught, replan)
            assert begun == [3000]

    asyncio.run(scenario())


def test_what_the_operator_wishes_later_is_asked_of_no_lesson(tmp_path: Path) -> None:
    lessons = Lessons(tmp_path / "lessons.json")
    failing = _Failing([CONTEXT])
    asyncio.run(Curing(Wishes(), lessons).start(failing.begin, CARD, failing.replan))

    def make(wishes: Wishes) -> Plan:
        return dataclasses.replace(CARD, context_tokens=wishes.context_tokens or 4096)

    assert Curing(Wishes(), lessons).plan(make).context_tokens == 3072
    assert Curing(Wishes(context_tokens=4000), lessons).plan(make).context_tokens == 4000
    assert Curing(Wishes(max_num_seqs=8), lessons).plan(make).context_tokens == 4096


def test_three_changes_and_no_more() -> None:
    failing = _Failing([("sampler", str(2**n)) for n in (10, 9, 8, 7)])
    with pytest.raises(StartFailed) as caught:
        asyncio.run(Curing(Wishes(), Lessons(None)).start(failing.begin, CARD, failing.replan))
    assert failing.wished == [512, 256, 128]
    assert caught.value.remedy == (
        "do something; tried already: 512 sequences at once instead of 1024; "
        "256 sequences at once instead of 512; 128 sequences at once instead of 256"
    )


def test_several_things_at_once_are_changed_one_by_one(tmp_path: Path) -> None:
    lessons = Lessons(tmp_path / "lessons.json")
    failing = _Failing([("after_kv", ""), ("sampler", "1024")])
    curing = Curing(Wishes(), lessons)
    asyncio.run(curing.start(failing.begin, CARD, failing.replan))
    assert [wishes.gpu_memory_utilization for wishes in failing.asked] == [0.87, 0.87]
    assert [wishes.max_num_seqs for wishes in failing.asked] == [None, 512]
    later = _Failing([("after_kv", "")])
    asyncio.run(curing.start(later.begin, CARD, later.replan))
    assert later.asked[0].max_num_seqs == 512  # what an earlier start has taught stays
    assert later.asked[0].gpu_memory_utilization == 0.87


@pytest.mark.parametrize("finding", [(), ("unheard-of",)])
def test_a_failure_without_a_cure_is_passed_on_as_it_is(finding: tuple[str, ...]) -> None:
    failing = _Failing([finding])
    with pytest.raises(StartFailed) as caught:
        asyncio.run(Curing(Wishes(), Lessons(None)).start(failing.begin, CARD, failing.replan))
    assert caught.value.remedy == "do something" and failing.asked == []


@pytest.mark.parametrize(
    "refusal", [DoesNotFit("m", "H100", 2, 1), SettingsError("plan", "context", "too long")]
)
def test_a_change_that_cannot_be_planned_leaves_the_first_failure(refusal: Exception) -> None:
    async def replan(_: Wishes) -> Plan:
        raise refusal

    failing = _Failing([CONTEXT])
    with pytest.raises(StartFailed) as caught:
        asyncio.run(Curing(Wishes(), Lessons(None)).start(failing.begin, CARD, replan))
    assert caught.value.remedy == "do something"
    assert caught.value.__cause__ is refusal


def test_a_lesson_that_does_not_fit_any_more_is_left_alone(tmp_path: Path) -> None:
    lessons = Lessons(tmp_path / "lessons.json")
    failing = _Failing([CONTEXT])
    asyncio.run(Curing(Wishes(), lessons).start(failing.begin, CARD, failing.replan))

    def make(wishes: Wishes) -> Plan:
        if wishes.context_tokens is not None:
            raise DoesNotFit("m", "H100", 2, 1)
        return CARD

    assert Curing(Wishes(), lessons).plan(make) is CARD


def test_a_fleet_serves_with_what_there_is_room_for_and_begins_there_the_next_time(
    tmp_path: Path,
) -> None:
    async def scenario(home: Path) -> None:
        catalog = write_catalog(tmp_path, small={"longest_context": 3000, "context": 4096})
        for starts in (2, 1):
            async with fleet(home, catalog) as made:
                status = await made.load("small")
                assert status.context_tokens == 3000
                assert status.note is not None and "3" in status.note
                assert made.roster().models[0].context_tokens == 3000
            logs = list((home / "logs").glob("small-0@*.log"))
            assert len(logs) == starts
            for log in logs:
                log.unlink()

    with short_folder() as home:
        asyncio.run(scenario(home))


def test_a_fleet_does_not_touch_what_the_operator_has_set(tmp_path: Path) -> None:
    async def scenario(home: Path) -> None:
        catalog = write_catalog(tmp_path, small={"longest_context": 3000, "context": 4096})
        async with fleet(home, catalog, wishes=Wishes(context_tokens=4096)) as made:
            with pytest.raises(StartFailed) as failed:
                await made.load("small")
            assert failed.value.remedy is not None and "3000 or less" in failed.value.remedy

    with short_folder() as home:
        asyncio.run(scenario(home))


class _Failing:
    """Starts that fail for one finding after another, then go well."""

    def __init__(self, findings: list[tuple[str, ...]]) -> None:
        self.findings = findings
        self.asked: list[Wishes] = []

    @property
    def wished(self) -> list[int | None]:
        return [wishes.max_num_seqs for wishes in self.asked]

    async def begin(self, plan: Plan) -> Any:
        if self.findings:
            finding = self.findings.pop(0)
            raise StartFailed("m", "a cause", "/log", 1, "do something", finding)
        return plan

    async def replan(self, wishes: Wishes) -> Plan:
        self.asked.append(wishes)
        return CARD


def _counting(
    begin: Callable[[Plan], Awaitable[Engine]], begun: list[int]
) -> Callable[[Plan], Awaitable[Engine]]:
    async def counted(plan: Plan) -> Engine:
        begun.append(plan.context_tokens)
        return await begin(plan)

    return counted
