"""What of the processor belongs to each replica."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from serve.fleet.shares import Seat, share_of
from serve.hardware import Cpu, Machine
from tests.fleet.houses import GIB, MACHINE


def machine(*sizes: int) -> Machine:
    nodes, first = [], 0
    for size in sizes:
        nodes.append(tuple(range(first, first + size)))
        first += size
    free = tuple(size * GIB for size in sizes) if len(sizes) > 1 else ()
    cores = tuple(range(first))
    cpu = Cpu("test", cores, tuple(nodes), frozenset(), 99 * GIB, first * GIB, free)
    return Machine(cpu)


def shares(whole: Machine, count: int) -> list[Cpu]:
    return [share_of(whole, Seat(f"m-{n}", n, count)).cpu for n in range(count)]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 12))
def test_cores_are_shared_out_evenly(sizes: list[int], count: int) -> None:
    whole = machine(*sizes)
    cpus = shares(whole, count)
    taken = [core for cpu in cpus for core in cpu.cores]
    assert all(cpu.cores and set(cpu.cores) <= set(whole.cpu.cores) for cpu in cpus)
    assert all(cpu.cores == tuple(c for node in cpu.nodes for c in node) for cpu in cpus)
    if count <= min(sizes):
        assert sorted(taken) == sorted(set(taken)), "no core has two replicas"
    if count <= len(sizes) or all(size >= -(-count // len(sizes)) for size in sizes):
        assert set(taken) == set(whole.cpu.cores), "no core is left out"
    if count >= len(sizes):
        assert all(len(cpu.nodes) == 1 for cpu in cpus), "memory is bound to one node"


@given(st.lists(st.integers(2, 9), min_size=1, max_size=4), st.integers(2, 12))
def test_memory_is_shared_by_those_that_are_still_to_come(sizes: list[int], count: int) -> None:
    whole = machine(*sizes)
    free = whole.cpu.free_bytes
    for index in range(count):
        cpu = share_of(whole, Seat("m", index, count, running=index)).cpu
        assert cpu.free_bytes == free // (count - index)
        assert len(cpu.node_free_bytes) in (0, len(cpu.nodes))
    total = sum(sum(cpu.node_free_bytes) for cpu in shares(whole, count))
    assert total <= sum(whole.cpu.node_free_bytes)


def test_two_replicas_on_two_cores() -> None:
    first, second = shares(MACHINE, 2)
    assert (first.cores, second.cores) == ((0,), (1,))
    assert first.free_bytes == MACHINE.cpu.free_bytes // 2


def test_one_replica_has_all_and_cards_are_not_shared_out() -> None:
    assert share_of(MACHINE, Seat("m")) is MACHINE
    unknown = Machine(replace(MACHINE.cpu, cores=(), nodes=()))
    assert share_of(unknown, Seat("m", 1, 2)) == unknown
