"""The choice of a replica."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

from serve.roster import Chooser, Replica, Roster, ServedModel
from serve.roster.choice import Lease
from serve.roster.roster import Routing

RNG = random.Random(5)


def text(n_bytes: int) -> bytes:
    return RNG.randbytes(n_bytes // 2).hex().encode()


def model(count: int, routing: Routing = "prefix", **changes: Any) -> ServedModel:
    replicas = tuple(Replica(f"m-{n}", f"unix:/{n}", 100_000) for n in range(count))
    return replace(ServedModel("m", (), "ready", 8192, 0, replicas, routing=routing), **changes)


def roster(*models: ServedModel) -> Roster:
    return Roster(models=models)


def pick(
    chooser: Chooser, served: ServedModel, prompt: bytes, salt: bytes = b"", *avoid: str
) -> Lease:
    lease = chooser.pick(served, prompt, salt, frozenset(avoid))
    assert lease is not None
    return lease


def where(chooser: Chooser, served: ServedModel, prompt: bytes, salt: bytes = b"") -> str:
    lease = pick(chooser, served, prompt, salt)
    lease.end()
    return lease.replica.id


def test_a_conversation_stays_where_it_began() -> None:
    chooser, served = Chooser(), model(4)
    talks = [b"[" + text(2000) for _ in range(20)]
    homes = [where(chooser, served, talk + b"]") for talk in talks]
    assert Counter(homes) == {f"m-{n}": 5 for n in range(4)}
    for _ in range(5):
        talks = [talk + text(RNG.randrange(600, 3000)) for talk in talks]
        assert [where(chooser, served, talk + b"]") for talk in talks] == homes


def test_turns_that_fill_no_block_stay_as_well() -> None:
    """Conversations that differ in some bytes only: who goes on is told from who begins alike."""
    chooser, served, system = Chooser(), model(2), b"[" + text(8192)
    talks = [system + text(60) for _ in range(40)]
    homes = []
    for talk in talks:
        homes.append(where(chooser, served, talk + b"]"))
        for turn in range(1, 4):
            talk += b"%d" % turn * 30
            assert where(chooser, served, talk + b"]") == homes[-1]
    assert min(Counter(homes).values()) >= 10


def test_prompts_with_nothing_in_common_take_turns() -> None:
    for routing in ("prefix", "least-load", "round-robin"):
        chooser, served = Chooser(), model(3, routing)
        homes = Counter(where(chooser, served, text(1000)) for _ in range(300))
        assert homes == {"m-0": 100, "m-1": 100, "m-2": 100}, routing


def test_short_prompts_go_where_least_is_done() -> None:
    chooser, served = Chooser(), model(3)
    leases = [pick(chooser, served, b'"hi"') for _ in range(9)]
    assert set(chooser.running.values()) == {3}
    for lease in leases:
        if lease.replica.id != "m-1":
            lease.end()
    assert {pick(chooser, served, b'"hi"').replica.id for _ in range(4)} == {"m-0", "m-2"}


def test_what_all_begin_with_draws_nobody_to_one_cache() -> None:
    chooser, served, system = Chooser(), model(2), b"[" + text(8192)
    homes = Counter(where(chooser, served, system + text(1500)) for _ in range(200))
    assert min(homes.values()) > 80
    # The first few hundred KB of one that comes later are not all of the traffic either.
    late = replace(served, replicas=(*served.replicas, Replica("m-2", "unix:/2", 100_000)))
    homes = Counter(where(chooser, late, system + text(1500)) for _ in range(300))
    assert max(homes.values()) < 150 and min(homes.values()) > 60


def test_who_is_too_busy_gets_nothing_for_what_it_has_cached() -> None:
    chooser, served, prompt = Chooser(), model(4), b"[" + text(4000) + b"]"
    leases = [pick(chooser, served, prompt) for _ in range(40)]
    counts = Counter(lease.replica.id for lease in leases)
    assert max(counts.values()) <= 1.25 * 10 + 3 and min(counts.values()) >= 6
    for lease in leases:
        lease.end()
        lease.end()
    assert set(chooser.running.values()) == {0}


def test_who_is_avoided_is_never_picked() -> None:
    for routing in ("prefix", "least-load", "round-robin"):
        chooser, served, prompt = Chooser(), model(3, routing), text(4000)
        home = where(chooser, served, prompt)
        for _ in range(10):
            lease = pick(chooser, served, prompt, b"", home)
            assert lease.replica.id != home
            assert chooser.pick(served, prompt, b"", frozenset({"m-0", "m-1", "m-2"})) is None
            lease.end()
    assert Chooser().pick(model(0), b"", b"") is None
    assert Chooser().pick(model(1), b"", b"", frozenset({"m-0"})) is None


def test_tenants_do_not_see_each_other_s_prefixes() -> None:
    chooser, served, prompt = Chooser(), model(8), b"[" + text(8000)
    homes = {where(chooser, served, prompt, b"tenant %d" % n) for n in range(8)}
    assert len(homes) == 8
    again = {where(chooser, served, prompt, b"tenant %d" % n) for n in range(8)}
    assert again == homes


def test_another_life_begins_with_an_empty_cache() -> None:
    chooser, served, talk = Chooser(), model(2), b"[" + text(4000)
    chooser.update(roster(served))
    home = where(chooser, served, talk)
    running = pick(chooser, served, talk)
    assert running.replica.id == home
    chooser.update(roster(served))  # the same lives: nothing is forgotten
    assert where(chooser, served, talk) == home
    reborn = tuple(
        replace(replica, epoch=1) if replica.id == home else replica for replica in served.replicas
    )
    served = replace(served, replicas=reborn)
    chooser.update(roster(served))
    before = chooser.blocks
    assert before == 0, "all of it was the one's that has gone"
    assert where(chooser, served, talk) != home, "the other one has less to do"
    running.end(1000, 1000)
    assert set(chooser.running.values()) == {0}


def test_who_has_gone_is_forgotten() -> None:
    chooser, served = Chooser(), model(3)
    leases = [pick(chooser, served, text(1000)) for _ in range(6)]
    for lease in leases[:3]:
        lease.end()
    chooser.update(roster())
    assert chooser.blocks == 0
    assert sum(chooser.running.values()) == 3
    for lease in leases:
        lease.end(10, 0)
    chooser.update(roster())
    assert chooser.running == {}


def test_engines_that_hold_less_than_was_thought_are_believed_less() -> None:
    chooser, served = Chooser(), model(2)
    small = replace(served, replicas=tuple(replace(r, kv_tokens=2000) for r in served.replicas))
    talks = [b"[" + text(4096) for _ in range(200)]

    def entries(cached: bool) -> int:
        for talk in talks:
            for _ in range(2):
                pick(chooser, small, talk).end(1024, 1024 if cached else 0)
        return chooser.blocks

    believed = entries(cached=True)
    assert entries(cached=False) < believed / 2
    for _ in range(20):
        entries(cached=True)
    assert entries(cached=True) >= believed / 2


def test_a_prompt_that_is_still_being_read_is_no_broken_promise() -> None:
    """Some with the same beginning at once: none of it is cached yet, nobody has promised it."""
    chooser, served = Chooser(), model(2)
    for _ in range(300):
        talk = text(8192)
        leases = [pick(chooser, served, talk + text(600)) for _ in range(3)]
        known = chooser.blocks
        for lease in leases:
            lease.end(2400, 0)
        assert chooser.blocks == known


def test_one_replica_costs_no_hashing() -> None:
    chooser, served = Chooser(), model(1)
    assert where(chooser, served, text(10_000)) == "m-0"
    assert chooser.blocks == 0
