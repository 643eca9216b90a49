"""Models that somebody else serves."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serve.catalog import load_catalog
from serve.errors import RuntimeMissing, SettingsError, SourceUnreachable, UnknownModel
from serve.fleet.probing import UpstreamProbe
from serve.quota import Key, Limits, Price, digest_key
from serve.settings import ModelTerms
from serve.wire import from_wire
from tests.fleet.houses import short_folder, write_catalog
from tests.fleet.upstreams import Upstream, front, listening, until, vllm


def in_house(check: Callable[[Path], Coroutine[Any, Any, None]]) -> None:
    with short_folder() as home:
        asyncio.run(check(home))


def terms(*urls: str, **changes: Any) -> ModelTerms:
    return replace(ModelTerms("theirs", urls, "their-model", aliases=("Alias",)), **changes)


def test_a_server_is_served_with_what_it_says_of_itself() -> None:
    async def check(home: Path) -> None:
        (home / "key").write_text("secret\n")
        price, limits = Price(1, 2, 3), Limits(rpm=7)
        upstream = vllm()
        async with listening(upstream, home / "a.sock") as url:
            wanted = terms(
                url, key_file=home / "key", price=price, limits=limits, slots=9, takes_salt=False,
                routing="least-load",
            )  # fmt: skip
            async with front(home, wanted) as made:
                status = await made.load("alias")
                assert (status.state, status.replica, status.address) == ("ready", "theirs-0", url)
                (model,) = made.roster().models
        assert (model.name, model.aliases, model.upstream) == ("theirs", ("Alias",), "their-model")
        assert (model.state, model.context_tokens, model.routing) == ("ready", 4096, "least-load")
        assert (model.price, model.limits, model.takes_salt) == (price, limits, False)
        (replica,) = model.replicas
        assert (replica.address, replica.kv_tokens, replica.slots) == (url, 700 * 128, 9)
        assert (replica.key, replica.epoch) == ("secret", 1)
        assert {authorization for _, authorization in upstream.asked} == {"bearer secret"}

    in_house(check)


def test_servers_leave_the_roster_and_come_back_as_new_ones() -> None:
    async def check(home: Path) -> None:
        first, second = vllm(), vllm(context=2048)
        async with AsyncExitStack() as stack:
            urls = [
                await stack.enter_async_context(listening(one, home / name))
                for one, name in ((first, "a.sock"), (second, "b.sock"))
            ]
            made = await stack.enter_async_context(front(home, terms(*urls)))
            await made.load("theirs")
            roster = await until(made, lambda model: len(model.replicas) == 2)
            assert roster.models[0].context_tokens == 2048
            second.answers["/health"] = (503, "")
            roster = await until(made, lambda model: len(model.replicas) == 1)
            assert roster.models[0].state == "ready"
            assert [each.state for each in made.status()] == ["ready", "restarting"]
            problem = from_wire(made.status()[1].problem or {})
            assert isinstance(problem, SourceUnreachable) and "503" in problem.reason
            first.answers["/health"] = (500, "")
            await until(made, lambda model: model.state == "restarting")
            second.answers["/health"] = (200, "")
            roster = await until(made, lambda model: model.state == "ready")
            (replica,) = roster.models[0].replicas
            assert (replica.id, replica.epoch) == ("theirs-1", 2)

    in_house(check)


def test_a_server_that_is_not_there_yet_is_waited_for() -> None:
    async def check(home: Path) -> None:
        async with front(home, terms(f"unix:{home}/late.sock")) as made:
            status = await made.load("theirs")
            assert status.state == "starting" and status.problem is not None
            (model,) = made.roster().models
            assert (model.state, model.replicas) == ("starting", ())
            async with listening(vllm(), home / "late.sock"):
                await until(made, lambda model: model.state == "ready")
                await made.unload("theirs")
                assert made.roster().models == ()

    in_house(check)


def test_what_a_server_does_not_show_is_not_known() -> None:
    async def check(home: Path) -> None:
        models = {"/v1/models": (200, '{"data":[{"id":"x"}]}')}
        for answers in (models, {"/v1/models": (200, "[]")}, {**models, "/health": (401, "")}):
            async with (
                listening(Upstream(answers), home / "a.sock") as url,
                front(home, terms(url)) as made,
            ):
                assert (await made.load("theirs")).state == "ready"
                (model,) = made.roster().models
                assert (model.context_tokens, model.replicas[0].kv_tokens) == (0, 0)
        async with (
            listening(Upstream({}), home / "a.sock") as url,
            front(home, terms(url)) as made,
        ):
            assert (await made.load("theirs")).state == "starting"

    in_house(check)


def test_one_that_is_too_busy_to_answer_is_there() -> None:
    async def check(home: Path) -> None:
        upstream = vllm()
        async with listening(upstream, home / "a.sock") as url:
            probe = UpstreamProbe(url, "")
            try:
                assert (await probe.look("m", is_known=True)).problem is None
                upstream.answers["/health"] = (200, "x\r\n\x00")  # more than its length says
                upstream.answers["/v1/models"] = (200, "not json")
                look = await probe.look("m", is_known=False)
                assert look.problem is None and look.context_tokens == 0
            finally:
                await probe.close()
            gone = UpstreamProbe(f"unix:{home}/nobody.sock", "")
            look = await gone.look("m", is_known=False)
            await gone.close()
            assert look.problem is not None and not look.is_silent

    in_house(check)


def test_a_key_that_cannot_be_read_is_told() -> None:
    async def check(home: Path) -> None:
        wanted = terms("unix:/nowhere", key_file=home / "none")
        async with front(home, wanted) as made:
            with pytest.raises(SettingsError) as refused:
                await made.load("theirs")
            assert refused.value.key == "models.theirs.key_file"
            assert made.roster().models == ()

    in_house(check)


def test_without_a_runtime_own_models_are_refused(tmp_path: Path) -> None:
    async def check(home: Path) -> None:
        catalog = load_catalog(write_catalog(tmp_path, small={}))
        async with front(home, terms("unix:/nowhere"), catalog=catalog) as made:
            assert await made.adopt(("theirs", "small")) == ()
            with pytest.raises(RuntimeMissing):
                await made.load("small")
            with pytest.raises(UnknownModel):
                await made.load("nobody")
            assert made.status() == ()

    in_house(check)


def test_keys_are_published_at_once() -> None:
    async def check(home: Path) -> None:
        async with front(home) as made:
            rosters = made.rosters()
            assert (await anext(rosters)).is_open
            key = Key("k", digest_key("k"), "tenant")
            made.set_keys((key,))
            roster = await anext(rosters)
            assert (roster.keys, roster.is_open) == ((key,), False)
            made.set_keys(())
            assert not (await anext(rosters)).is_open, "no key is not: no key is asked for"
            made.set_keys(None)
            roster = await anext(rosters)
            assert (roster.keys, roster.is_open) == ((), True)
            await rosters.aclose()  # type: ignore[attr-defined]

    in_house(check)
