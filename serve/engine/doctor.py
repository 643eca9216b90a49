"""What engines need of this machine, each with the cure when it is missing."""

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from serve.engine.compiling import find_cxx
from serve.engine.guarding import LONGEST_SOCKET_PATH_BYTES, socket_path_bytes
from serve.engine.isolation import Isolation, find_isolation
from serve.engine.preload import find_allocator, find_openmp
from serve.engine.runtime import Runtime
from serve.units import show_bytes

# vLLM's queues between its processes take up to 240 MiB each; Docker gives 64 MiB in all.
_ENOUGH_SHM_BYTES = 512 * 2**20
_ENOUGH_OPEN_FILES = 4096


@dataclass(frozen=True, slots=True)
class Check:
    """`found`: what is there; `cure`: what to do, None where nothing is to be done."""

    name: str
    is_ok: bool
    found: str
    cure: str | None


def doctor_checks(runtime: Runtime | None, run_dir: Path | None = None) -> tuple[Check, ...]:
    """All checks that make sense here; takes 0.1 s. `run_dir`: where engines' sockets would lie."""
    isolation = find_isolation("auto")
    checks = [check_runtime(runtime), check_isolation(isolation)]
    if runtime is not None and runtime.device == "cpu":
        checks += [
            check_allocator(find_allocator()),
            check_openmp(find_openmp(runtime)),
            check_compiler(find_cxx()),
        ]
    if isolation.level != "full":
        shm = os.statvfs("/dev/shm")
        checks.append(check_shm(shm.f_blocks * shm.f_frsize))
    if run_dir is not None:
        checks.append(check_sockets(run_dir))
    checks.append(check_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return tuple(checks)


def check_runtime(runtime: Runtime | None) -> Check:
    """Is there a vLLM for the device asked for?"""
    if runtime is None:
        return Check("runtime", False, "none", "inhouse engine install")
    return Check("runtime", True, f"{runtime.name} ({runtime.python})", None)


def check_isolation(isolation: Isolation) -> Check:
    """Not well only when engines can reach a network."""
    found = {
        "full": "engines have no network and a process namespace of their own",
        "network": "engines have no network, but share our process namespace",
        "off": "engines can reach the network",
    }[isolation.level]
    if isolation.problem is None:
        return Check("isolation", True, found, None)
    cure = f"let this user make namespaces: {isolation.problem}"
    return Check("isolation", isolation.level != "off", found, cure)


def check_allocator(place: Path | None) -> Check:
    """Against glibc as `preload.py` tunes it 49 and 42 tokens/s were measured (2 cores)."""
    if place is not None:
        return Check("tcmalloc", True, str(place), None)
    gain = "with it one stream is about 1.15 × and a long prompt about 1.1 × faster"
    return Check("tcmalloc", False, f"none ({gain})", "apt install libtcmalloc-minimal4")


def check_openmp(place: Path | None) -> Check:
    """Intel's OpenMP, preloaded on a CPU."""
    if place is not None:
        return Check("libiomp5", True, str(place), None)
    cure = "pip install intel-openmp into the runtime, or inhouse engine install"
    return Check("libiomp5", False, "none (vLLM's threads wait and wake slower)", cure)


def check_compiler(place: str | None) -> Check:
    """What compiling a model takes; 50 against 37 tokens/s on one stream were measured."""
    if place is not None:
        return Check("C++ compiler", True, place, None)
    gain = "compiled models decode about 1.4 × faster on a CPU"
    return Check("C++ compiler", False, f"none ({gain})", "apt install g++")


def check_shm(total_bytes: int) -> Check:
    """Without a PID namespace engines share the /dev/shm that is there."""
    is_ok = total_bytes >= _ENOUGH_SHM_BYTES
    cure = None if is_ok else "a larger /dev/shm (Docker: --shm-size=2g)"
    return Check("shared memory", is_ok, show_bytes(total_bytes), cure)


def check_sockets(run_dir: Path) -> Check:
    """The path of an engine's socket must fit into a socket address."""
    size = socket_path_bytes(run_dir)
    is_ok = size <= LONGEST_SOCKET_PATH_BYTES
    cure = None if is_ok else "a shorter paths.run (INHOUSE_RUN)"
    found = f"paths of {size} of at most {LONGEST_SOCKET_PATH_BYTES} bytes"
    return Check("engine sockets", is_ok, found, cure)


def check_open_files(limit: int) -> Check:
    """`limit`: the hard limit of this process, to which vLLM raises its own."""
    is_ok = limit == resource.RLIM_INFINITY or limit >= _ENOUGH_OPEN_FILES
    cure = None if is_ok else f"ulimit -n {_ENOUGH_OPEN_FILES} (systemd: LimitNOFILE=)"
    found = "unlimited" if limit == resource.RLIM_INFINITY else f"at most {limit}"
    return Check("open files", is_ok, found, cure)
