"""What engines need of this machine, each with the cure when it is missing."""

from pathlib import Path

from serve.engine.compiling import find_cxx
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
    System,
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
from serve.engine.guarding import LONGEST_SOCKET_PATH_BYTES, socket_path_bytes
from serve.engine.isolation import Isolation, find_isolation
from serve.engine.orphans import Home, Orphan, find_orphans, strangers
from serve.engine.preload import find_allocator, find_openmp
from serve.engine.runtime import Runtime
from serve.hardware import Machine
from serve.units import show_bytes


def doctor_checks(
    runtime: Runtime | None,
    machine: Machine,
    run_dir: Path,
    log_dir: Path,
    disks: tuple[tuple[str, Path], ...] = (),
) -> tuple[Check, ...]:
    """All checks that make sense here; takes 0.1 s.

    `run_dir`: where engines' sockets would lie; `log_dir`: their logs; `disks`: what a folder is
    for, and where it is.
    """
    home = Home(run_dir.resolve(), log_dir.resolve())
    isolation, system = find_isolation("auto"), read_system()
    device = runtime.device if runtime is not None else machine.device
    checks = [check_runtime(runtime), check_isolation(isolation)]
    if device == "cuda":
        checks += _cuda_checks(runtime, machine, home)
    elif runtime is not None:
        checks += _cpu_checks(runtime, system)
    if isolation.level != "full":
        checks.append(check_shm(system.shm_bytes))
    checks += [check_sockets(run_dir), check_orphans(find_orphans(home))]
    checks += _system_checks(system, machine)
    return (*checks, *(check_disk(name, folder) for name, folder in disks))


def _cuda_checks(runtime: Runtime | None, machine: Machine, home: Home) -> list[Check]:
    checks = [check_driver(machine)]
    if machine.gpus:
        checks += [check_cuda(machine.cuda), check_capability(machine)]
        checks.append(check_strangers(strangers(machine.gpus, home)))
    if len(machine.gpus) > 1:
        checks.append(check_locked_memory(read_system().limit_locked_bytes))
    if runtime is not None:
        checks += [check_compiler(find_cxx(), "cuda"), check_headers(find_headers(runtime), "cuda")]
        checks.append(check_nvcc(find_nvcc(runtime)))
    return checks


def _cpu_checks(runtime: Runtime, system: System) -> list[Check]:
    return [
        check_allocator(find_allocator()),
        check_openmp(find_openmp(runtime)),
        check_compiler(find_cxx()),
        check_headers(find_headers(runtime)),
        check_huge_pages(system.huge_pages),
    ]


def _system_checks(system: System, machine: Machine) -> list[Check]:
    return [
        check_open_files(system.limit_open_files),
        check_processes(system.limit_processes),
        check_memory(machine.cpu.total_bytes, system.memory_bytes),
        check_overcommit(system.overcommit, system.swap_bytes),
        check_clock(system.is_clock_synchronised, system.now_s),
    ]


def check_runtime(runtime: Runtime | None) -> Check:
    """Is there a vLLM for the device asked for?"""
    if runtime is None:
        return Check("runtime", False, "none", "inhouse engine install")
    return Check("runtime", True, f"{runtime.name} ({runtime.python})", None)


def check_isolation(isolation: Isolation) -> Check:
    """Not well only when engines can reach a network; they run all the same."""
    found = {
        "full": "engines have no network and a process namespace of their own",
        "network": "engines have no network, but share our process namespace",
        "off": "engines can reach the network",
    }[isolation.level]
    if isolation.problem is None:
        return Check("isolation", True, found, None)
    cure = f"let this user make namespaces: {isolation.problem}"
    return Check("isolation", isolation.level != "off", found, cure, is_needed=False)


def check_allocator(place: Path | None) -> Check:
    """Against glibc as `preload.py` tunes it 49 and 42 tokens/s were measured (2 cores)."""
    if place is not None:
        return Check("tcmalloc", True, str(place), None)
    gain = "with it one stream is about 1.15 × and a long prompt about 1.1 × faster"
    return Check("tcmalloc", False, f"none ({gain})", "apt install libtcmalloc-minimal4", False)


def check_openmp(place: Path | None) -> Check:
    """Intel's OpenMP, preloaded on a CPU."""
    if place is not None:
        return Check("libiomp5", True, str(place), None)
    cure = "pip install intel-openmp into the runtime, or inhouse engine install"
    return Check("libiomp5", False, "none (vLLM's threads wait and wake slower)", cure, False)


def check_compiler(place: str | None, device: str = "cpu") -> Check:
    """What compiling a model takes: 50 against 37 tokens/s on one stream were measured on a CPU.
    With CUDA triton needs it to load any kernel."""
    if place is not None:
        return Check("C++ compiler", True, place, None)
    gain = "compiled models decode about 1.4 × faster on a CPU"
    found = "none" if device == "cuda" else f"none ({gain})"
    return Check("C++ compiler", False, found, "apt install g++", is_needed=device == "cuda")


def check_headers(place: Path | None, device: str = "cpu") -> Check:
    """Python's own, for what is compiled: triton's loader, inductor's programs."""
    if place is not None:
        return Check("Python headers", True, str(place), None)
    found = "none (Python.h)"
    return Check("Python headers", False, found, "apt install python3-dev", device == "cuda")


def find_headers(runtime: Runtime) -> Path | None:
    """Where Python.h of the runtime's Python is."""
    prefix = runtime.python.resolve().parent.parent
    return next(iter(sorted(prefix.glob("include/python3*/Python.h"))), None)


def check_orphans(orphans: tuple[Orphan, ...]) -> Check:
    """Processes of engines of ours whose guard is gone."""
    if not orphans:
        return Check("orphans", True, "no engine has left a process behind", None)
    pids = ", ".join(str(orphan.pid) for orphan in orphans)
    size = show_bytes(sum(orphan.rss_bytes for orphan in orphans))
    found = f"engines that were killed have left processes behind: {pids} ({size})"
    return Check("orphans", False, found, f"the next inhouse serve ends them; or kill -9 {pids}")


def check_sockets(run_dir: Path) -> Check:
    """The path of an engine's socket must fit into a socket address."""
    size = socket_path_bytes(run_dir)
    is_ok = size <= LONGEST_SOCKET_PATH_BYTES
    cure = None if is_ok else "a shorter paths.run (INHOUSE_RUN)"
    found = f"paths of {size} of at most {LONGEST_SOCKET_PATH_BYTES} bytes"
    return Check("engine sockets", is_ok, found, cure)
