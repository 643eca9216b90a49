"""Whose turn it is: shares by weight in tokens, urgency with age, nobody forgotten."""

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from serve.limits.queue import AGE_S, QUANTUM_TOKENS, FairQueue
from serve.quota import Priority, Tenant

MOST_TOKENS = 20_000


@dataclass(frozen=True, eq=False)
class Somebody:
    tenant: Tenant
    tokens: int
    priority: Priority = "default"
    since_s: float = 0.0


def served(queue: FairQueue[Somebody], now_s: float = 0.0) -> Somebody:
    waiter = queue.next(now_s)
    assert queue.next(now_s) is waiter  # to ask twice changes nothing
    queue.serve(waiter)
    return waiter


weights = st.lists(st.integers(1, 8), min_size=2, max_size=6)


@given(weights, st.randoms(use_true_random=False), st.integers(1, MOST_TOKENS))
def test_backlogged_tenants_share_by_weight(weights: list[int], random, most: int) -> None:  # type: ignore[no-untyped-def]
    queue: FairQueue[Somebody] = FairQueue()
    tenants = [Tenant(f"t{number}", weight) for number, weight in enumerate(weights)]

    def push(tenant: Tenant) -> None:
        queue.push(Somebody(tenant, random.randint(1, most)))

    for tenant in tenants:
        for _ in range(3):
            push(tenant)
    had = Counter[str]()
    for _ in range(200):
        waiter = served(queue)
        had[waiter.tenant.name] += waiter.tokens
        push(waiter.tenant)  # nobody runs out
        shares = [had[tenant.name] / tenant.weight for tenant in tenants]
        assert max(shares) - min(shares) <= 2 * (QUANTUM_TOKENS + most)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.integers(1, MOST_TOKENS),
            st.sampled_from(["interactive", "default", "batch"]),
            st.sampled_from(["stay", "stay", "leave", "serve"]),
        ),
        max_size=60,
    )
)
def test_everybody_is_served_once_or_leaves(events: list[tuple[str, int, Priority, str]]) -> None:
    queue: FairQueue[Somebody] = FairQueue()
    waiting: list[Somebody] = []
    for second, (name, tokens, priority, what) in enumerate(events):
        waiter = Somebody(Tenant(name), tokens, priority, float(second))
        queue.push(waiter)
        waiting.append(waiter)
        if what == "leave":
            queue.remove(gone := waiting.pop(tokens % len(waiting)))
            queue.remove(gone)
        if what == "serve":
            waiting.remove(served(queue, float(second)))
        assert len(queue) == len(waiting)
    while waiting:
        waiting.remove(served(queue, 1000.0))
    assert len(queue) == 0


def test_a_tenant_s_most_urgent_goes_first() -> None:
    queue: FairQueue[Somebody] = FairQueue()
    classes: list[Priority] = ["batch", "default", "interactive", "default"]
    for number, priority in enumerate(classes):
        queue.push(Somebody(Tenant("t"), 10, priority, number / 10))
    order = [served(queue, 1.0).since_s for _ in classes]
    assert order == [0.2, 0.1, 0.3, 0.0]


def test_batches_fill_what_is_left_but_do_not_wait_for_ever() -> None:
    queue: FairQueue[Somebody] = FairQueue()
    batch = Somebody(Tenant("patient"), 10, "batch", 0.0)
    queue.push(batch)
    now_s, waiter = 0.0, None
    while waiter is not batch:
        queue.push(Somebody(Tenant("crowd"), 10, "interactive", now_s))
        waiter = served(queue, now_s)
        now_s += 1
    assert AGE_S <= now_s <= 2 * AGE_S + QUANTUM_TOKENS / 10


def test_nobody_of_a_tenant_starves_behind_its_own_urgent_ones() -> None:
    queue: FairQueue[Somebody] = FairQueue()
    batch = Somebody(Tenant("t"), 10, "batch", 0.0)
    queue.push(batch)
    now_s, waiter = 0.0, None
    while waiter is not batch:
        for _ in range(2):
            queue.push(Somebody(Tenant("t"), 10, "interactive", now_s))
        waiter = served(queue, now_s)
        now_s += 1
    # From then on only those are before it who came before it had aged.
    assert now_s <= 2 * AGE_S + 2


def test_a_newcomer_does_not_wait_for_a_crowd() -> None:
    queue: FairQueue[Somebody] = FairQueue()
    for _ in range(100):
        queue.push(Somebody(Tenant("crowd"), 1000))
    served(queue)
    newcomer = Somebody(Tenant("other"), 1000, since_s=1.0)
    queue.push(newcomer)
    assert newcomer in [served(queue, 1.0) for _ in range(3)]
