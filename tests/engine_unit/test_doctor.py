"""Each check names its cure exactly when it is not well."""

from dataclasses import replace
from pathlib import Path

import pytest

from serve.engine import doctor
from serve.engine.doctor import doctor_checks
from serve.engine.doctor_check import Check
from serve.engine.doctor_gpu import (
    check_capability,
    check_cuda,
    check_driver,
    check_nvcc,
    check_strangers,
    find_nvcc,
)
from serve.engine.doctor_system import (
    check_clock,
    check_disk,
    check_huge_pages,
    check_locked_memory,
    check_memory,
    check_open_files,
    check_overcommit,
    check_processes,
    check_shm,
    read_system,
)
from serve.engine.isolation import Isolation
from serve.engine.orphans import Orphan
from serve.engine.runtime import Runtime
from serve.hardware import Cpu, Gpu, Machine

GIB = 2**30
NOW_S = 1.8e9
RUNTIME = Runtime("vllm-0.32.0-cpu", Path("/rt/bin/python"), "cpu", "0.32.0", 1)
CPU = Machine(Cpu("test", (0, 1), ((0, 1),), frozenset(), 16 * GIB, 12 * GIB))
CARD = Gpu(0, "GPU-0", "H100", 80 * GIB, 80 * GIB, (9, 0))
OLD = replace(CARD, index=1, name="V100", compute_capability=(7, 0))
CUDA = replace(CPU, gpus=(CARD,), driver="580.65.06", cuda=(13, 0))


@pytest.mark.parametrize(
    ("check", "is_ok", "said"),
    [
        (doctor.check_runtime(None), False, "inhouse engine install"),
        (doctor.check_runtime(RUNTIME), True, "vllm-0.32.0-cpu"),
        (doctor.check_isolation(Isolation(("net", "pid"))), True, "no network"),
        (doctor.check_isolation(Isolation(("net",), "no /proc")), True, "no /proc"),
        (doctor.check_isolation(Isolation((), "EPERM")), False, "EPERM"),
        (doctor.check_allocator(None), False, "apt install libtcmalloc-minimal4"),
        (doctor.check_allocator(Path("/lib/tc.so")), True, "/lib/tc.so"),
        (doctor.check_openmp(None), False, "intel-openmp"),
        (doctor.check_openmp(Path("/lib/iomp.so")), True, "/lib/iomp.so"),
        (doctor.check_compiler(None), False, "apt install g++"),
        (doctor.check_compiler("/usr/bin/g++"), True, "/usr/bin/g++"),
        (doctor.check_headers(None), False, "apt install python3-dev"),
        (doctor.check_headers(Path("/usr/include/Python.h")), True, "Python.h"),
        (doctor.check_sockets(Path("/run/user/1000/inhouse")), True, "51"),
        (doctor.check_sockets(Path("/" + "x" * 90)), False, "paths.run"),
        (doctor.check_orphans(()), True, "no engine"),
        (doctor.check_orphans((Orphan(7, "x", 2 * GIB),)), False, "kill -9 7"),
        (check_driver(CUDA), True, "580.65.06"),
        (check_driver(replace(CUDA, gpu_problem="driver 535 is too old")), False, "driver 535"),
        (check_driver(CPU), False, "--gpus all"),
        (check_driver(replace(CUDA, gpus=(), hidden=(0, 1))), False, "hidden: 0, 1"),
        (check_cuda((13, 1)), True, "13.1"),
        (check_cuda((12, 8)), False, "580"),
        (check_cuda(None), False, "580"),
        (check_capability(CUDA), True, "9.0"),
        (check_capability(replace(CUDA, gpus=(CARD, OLD))), False, "GPU 1 (V100) has 7.0"),
        (check_strangers(()), True, "nobody"),
        (check_strangers(("GPU 0: process 7 (al, py, 1 GiB)",)), False, "process 7"),
        (check_nvcc("/usr/local/cuda/bin/nvcc"), True, "/usr/local/cuda"),
        (check_nvcc(None), False, "CUDA toolkit"),
        (check_shm(64 * 2**20), False, "--shm-size"),
        (check_shm(2**30), True, "1.0 GiB"),
        (check_open_files(1024), False, "ulimit -n"),
        (check_open_files(-1), True, "unlimited"),
        (check_processes(512), False, "ulimit -u"),
        (check_processes(-1), True, "unlimited"),
        (check_locked_memory(8 * 2**20), False, "LimitMEMLOCK"),
        (check_locked_memory(-1), True, "unlimited"),
        (check_huge_pages("never"), False, "transparent_hugepage"),
        (check_huge_pages("madvise"), True, "madvise"),
        (check_huge_pages(None), True, "no switch"),
        (check_overcommit("2", 0), False, "vm.overcommit_memory=0"),
        (check_overcommit("0", 2 * GIB), True, "swap 2.0 GiB"),
        (check_memory(2 * GIB, 64 * GIB), False, "2.0 GiB of 64.0 GiB"),
        (check_memory(8 * GIB, 64 * GIB), True, "by a limit of the cgroup"),
        (check_memory(64 * GIB, 64 * GIB), True, "64.0 GiB"),
        (check_clock(True, NOW_S), True, "2027-01-15"),
        (check_clock(False, NOW_S), False, "set-ntp"),
        (check_clock(True, 0.0), False, "1970-01-01"),
    ],
)
def test_checks(check: Check, is_ok: bool, said: str) -> None:
    assert check.is_ok == is_ok
    assert said in f"{check.found} {check.cure}"
    assert is_ok or check.cure is not None


@pytest.mark.parametrize(
    ("check", "is_needed"),
    [
        (doctor.check_allocator(None), False),
        (doctor.check_compiler(None), False),
        (doctor.check_compiler(None, "cuda"), True),
        (doctor.check_headers(None, "cuda"), True),
        (check_strangers(("somebody",)), False),
        (check_clock(False, NOW_S), False),
        (check_clock(True, 0.0), True),
        (check_cuda((12, 8)), True),
        (check_overcommit("2", 0), True),
    ],
)
def test_what_engines_can_do_without_is_advice(check: Check, is_needed: bool) -> None:
    assert not check.is_ok and check.is_needed == is_needed


def test_room_on_a_disk_is_looked_for_where_a_folder_will_lie(tmp_path: Path) -> None:
    check = check_disk("disk", tmp_path / "not" / "there" / "yet")
    assert str(tmp_path) in check.found and "free" in check.found


def test_the_list_depends_on_the_device(tmp_path: Path) -> None:
    def names(runtime: Runtime | None, machine: Machine) -> set[str]:
        checks = doctor_checks(runtime, machine, tmp_path, tmp_path, (("disk", tmp_path),))
        return {check.name for check in checks}

    always = {"runtime", "isolation", "open files", "engine sockets", "orphans", "memory", "disk"}
    for_cpu = {"tcmalloc", "libiomp5", "C++ compiler", "huge pages"}
    for_cuda = {"NVIDIA driver", "CUDA", "compute capability", "cards"}
    assert always <= names(None, CPU) & names(RUNTIME, CPU) & names(None, CUDA)
    assert for_cpu <= names(RUNTIME, CPU) and not for_cuda & names(RUNTIME, CPU)
    assert for_cuda <= names(None, CUDA) and not for_cpu & names(None, CUDA)
    two = replace(CUDA, gpus=(CARD, OLD))
    assert names(None, two) - names(None, CUDA) == {"locked memory"}
    with_runtime = names(replace(RUNTIME, device="cuda"), CUDA)
    assert {"nvcc", "Python headers", "C++ compiler"} <= with_runtime


def test_the_system_is_read_from_its_files(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": "MemTotal: 1024 kB\nSwapTotal: 2 kB\nHugePages_Total: x\n",
        "proc/sys/vm/overcommit_memory": "2\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
        "sys/fs/cgroup/pids.max": "100\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    system = read_system(tmp_path)
    assert (system.memory_bytes, system.swap_bytes) == (2**20, 2048)
    assert (system.overcommit, system.huge_pages, system.limit_processes) == ("2", "madvise", 100)
    bare = read_system(tmp_path / "nothing")
    assert (bare.memory_bytes, bare.overcommit, bare.huge_pages, bare.shm_bytes) == (
        0, None, None, 0,
    )  # fmt: skip
    assert read_system().memory_bytes > 0


def test_the_compiler_that_came_with_the_runtime_counts(tmp_path: Path) -> None:
    nvcc = tmp_path / "lib/python3.11/site-packages/nvidia/cu13/bin/nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.touch(0o755)
    found = find_nvcc(replace(RUNTIME, python=tmp_path / "bin" / "python"))
    assert found is not None and found.endswith("nvcc")
