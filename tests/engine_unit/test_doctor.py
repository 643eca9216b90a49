"""Each check names its cure exactly when it is not well."""

from pathlib import Path

import pytest

from serve.engine import doctor
from serve.engine.doctor import Check, doctor_checks
from serve.engine.isolation import Isolation
from serve.engine.runtime import Runtime

RUNTIME = Runtime("vllm-0.32.0-cpu", Path("/rt/bin/python"), "cpu", "0.32.0", 1)


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
        (doctor.check_shm(64 * 2**20), False, "--shm-size"),
        (doctor.check_shm(2**30), True, "1.0 GiB"),
        (doctor.check_sockets(Path("/run/user/1000/inhouse")), True, "51"),
        (doctor.check_sockets(Path("/" + "x" * 90)), False, "paths.run"),
        (doctor.check_open_files(1024), False, "ulimit -n"),
        (doctor.check_open_files(-1), True, "unlimited"),
    ],
)
def test_checks(check: Check, is_ok: bool, said: str) -> None:
    assert check.is_ok == is_ok
    assert said in f"{check.found} {check.cure}"
    assert is_ok or check.cure is not None


def test_the_list_depends_on_the_device() -> None:
    without = {check.name for check in doctor_checks(None)}
    with_cpu = {check.name for check in doctor_checks(RUNTIME, Path("/run"))}
    assert {"runtime", "isolation", "open files"} <= without
    assert {"tcmalloc", "libiomp5", "C++ compiler", "engine sockets"} <= with_cpu - without
