"""Processors and memory from saved trees: a virtual machine, a dual-socket box, containers."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.hardware import Cpu, read_machine
from serve.hardware.cpu import interpret_cpu, parse_cpu_list, read_cpu
from tests.hardware.trees import dual_socket, put, unpack

SAMPLES = Path(__file__).parent / "samples"
ALL = frozenset(range(16))
GIB = 2**30


def cpu_of(root: Path, affinity: frozenset[int] = ALL) -> Cpu:
    return interpret_cpu(read_cpu(root, affinity))


def test_a_virtual_machine_with_two_cores(tmp_path: Path) -> None:
    cpu = cpu_of(unpack(SAMPLES / "two-core-vm.txt", tmp_path), frozenset({0, 1}))
    assert cpu.name == "Intel(R) Xeon(R) Processor"
    assert (cpu.cores, cpu.nodes, cpu.node_free_bytes) == ((0, 1), ((0, 1),), ())
    assert {"avx512_bf16", "amx_tile"} <= cpu.flags
    assert cpu.isa == ("AVX2", "AVX-512", "AVX-512 BF16", "AMX BF16", "AMX INT8")
    assert cpu.total_bytes == 24731708 * 1024
    assert 0 < cpu.free_bytes < cpu.total_bytes


def test_a_dual_socket_box_gives_one_cpu_per_core_and_node_by_node(tmp_path: Path) -> None:
    cpu = cpu_of(dual_socket(tmp_path))
    assert cpu.nodes == ((0, 2, 4, 6), (1, 3, 5, 7))
    assert cpu.cores == (0, 2, 4, 6, 1, 3, 5, 7)
    assert cpu.node_free_bytes == (11230 * 1024, 21230 * 1024)
    assert (cpu.total_bytes, cpu.free_bytes) == (64 * GIB, 60 * GIB)


def test_affinity_leaves_the_second_thread_where_the_first_is_taken(tmp_path: Path) -> None:
    cpu = cpu_of(dual_socket(tmp_path), frozenset({1, 8, 9, 10}))
    assert cpu.nodes == ((8, 10), (1,))
    assert len(cpu.node_free_bytes) == 2


def test_affinity_to_one_socket_leaves_one_node(tmp_path: Path) -> None:
    cpu = cpu_of(dual_socket(tmp_path), frozenset({1, 3}))
    assert cpu.nodes == ((1, 3),)
    assert cpu.node_free_bytes == (21230 * 1024,)


def test_a_container_with_cgroup_v2_limits(tmp_path: Path) -> None:
    root = dual_socket(tmp_path)
    put(root, "proc/self/cgroup", "0::/\n")
    put(root, "sys/fs/cgroup/memory.max", f"{8 * GIB}\n")
    put(root, "sys/fs/cgroup/memory.current", f"{3 * GIB}\n")
    put(root, "sys/fs/cgroup/memory.stat", f"anon 1\ninactive_file {1 * GIB}\n")
    put(root, "sys/fs/cgroup/cpu.max", "550000 100000\n")
    cpu = cpu_of(root)
    assert (cpu.total_bytes, cpu.free_bytes) == (8 * GIB, 6 * GIB)
    assert cpu.nodes == ((0, 2, 4, 6), (1,))


def test_the_tightest_group_on_the_way_up_counts(tmp_path: Path) -> None:
    root = dual_socket(tmp_path)
    put(root, "proc/self/cgroup", "0::/user.slice/run\n")
    put(root, "sys/fs/cgroup/user.slice/memory.max", f"{16 * GIB}\n")
    put(root, "sys/fs/cgroup/user.slice/memory.current", f"{15 * GIB}\n")
    put(root, "sys/fs/cgroup/user.slice/run/memory.max", "max\n")
    put(root, "sys/fs/cgroup/user.slice/run/cpu.max", "50000 100000\n")
    cpu = cpu_of(root)
    assert (cpu.total_bytes, cpu.free_bytes) == (16 * GIB, 1 * GIB)
    assert cpu.nodes == ((0,),)


def test_cgroup_v1_limits_even_where_our_path_is_the_hosts(tmp_path: Path) -> None:
    root = dual_socket(tmp_path)
    put(root, "proc/self/cgroup", "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n")
    put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{4 * GIB}\n")
    put(root, "sys/fs/cgroup/memory/memory.usage_in_bytes", f"{2 * GIB}\n")
    put(root, "sys/fs/cgroup/memory/memory.stat", f"total_inactive_file {1 * GIB}\n")
    put(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n")
    put(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    cpu = cpu_of(root)
    assert (cpu.total_bytes, cpu.free_bytes) == (4 * GIB, 3 * GIB)
    assert cpu.cores == (0, 2)


def test_cgroup_v1_without_limits(tmp_path: Path) -> None:
    root = dual_socket(tmp_path)
    put(root, "proc/self/cgroup", "4:memory:/\n1:cpu:/\n")
    put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    put(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    put(root, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    cpu = cpu_of(root)
    assert cpu.total_bytes == 64 * GIB
    assert len(cpu.cores) == 8


def test_a_path_that_climbs_out_of_the_cgroups_is_not_followed(tmp_path: Path) -> None:
    root = dual_socket(tmp_path)
    put(root, "proc/self/cgroup", "0::/../../outside\n")
    put(root, "sys/outside/memory.max", "1\n")
    assert cpu_of(root).total_bytes == 64 * GIB


def test_a_kernel_that_hides_its_topology(tmp_path: Path) -> None:
    put(tmp_path, "proc/meminfo", "MemTotal: 2 kB\nMemAvailable: 1 kB\n")
    put(tmp_path, "proc/cpuinfo", "processor : 0\nFeatures : asimd bf16\n")
    cpu = cpu_of(tmp_path, frozenset({3, 1}))
    assert (cpu.name, cpu.cores, cpu.nodes) == ("unknown processor", (1, 3), ((1, 3),))
    assert cpu.flags == {"asimd", "bf16"}
    assert cpu.isa == ("NEON",)


@pytest.mark.parametrize(
    ("flags", "isa"),
    [
        ("sse4_2 avx", ()),
        ("avx2", ("AVX2",)),
        ("avx2 avx512f", ("AVX2",)),
        ("avx2 avx512f avx512bw avx512vl", ("AVX2", "AVX-512")),
        ("avx2 amx_tile", ("AVX2",)),
        ("amx_tile amx_int8", ("AMX INT8",)),
        ("asimd sve", ("NEON", "SVE")),
    ],
)
def test_what_the_processor_can_compute_with(
    tmp_path: Path, flags: str, isa: tuple[str, ...]
) -> None:
    put(tmp_path, "proc/meminfo", "MemTotal: 2 kB\nMemAvailable: 1 kB\n")
    put(tmp_path, "proc/cpuinfo", f"processor : 0\nflags : {flags}\n")
    assert cpu_of(tmp_path, frozenset({0})).isa == isa


@pytest.mark.parametrize(
    ("text", "cpus"), [("", set()), ("0", {0}), ("0-2,8\n", {0, 1, 2, 8}), ("4,1-1", {1, 4})]
)
def test_sets_of_cpus(text: str, cpus: set[int]) -> None:
    assert parse_cpu_list(text) == cpus


@settings(deadline=None)
@given(st.sets(st.integers(0, 300), min_size=1))
def test_a_plain_list_of_cpus_is_read_back(cpus: set[int]) -> None:
    assert parse_cpu_list(",".join(map(str, cpus))) == cpus


def test_this_machine_can_be_read() -> None:
    machine = read_machine()
    assert machine.cpu.cores
    assert 0 < machine.cpu.free_bytes <= machine.cpu.total_bytes
    assert machine.device == ("cuda" if machine.gpus else "cpu")
