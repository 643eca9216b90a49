"""Which namespaces are taken, and what is said when they are not to be had."""

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from serve.engine.isolation import _with_cure, find_isolation
from serve.errors import IsolationUnavailable
from tests.engine_unit.pools import fake_plan, fake_pool, family

EPERM = "no namespaces: [Errno 1] unshare: Operation not permitted"


def test_off_is_off_without_a_try() -> None:
    isolation = find_isolation("off", lambda namespaces: pytest.fail("tried"))
    assert (isolation.level, isolation.namespaces) == ("off", ())


def test_the_best_is_taken() -> None:
    isolation = find_isolation("required", lambda namespaces: None)
    assert isolation.level == "full"
    assert ("user" in isolation.namespaces) == (os.geteuid() != 0)
    assert isolation.problem is None


def test_no_network_is_better_than_nothing() -> None:
    isolation = find_isolation("required", lambda tried: "no /proc" if "pid" in tried else None)
    assert (isolation.level, isolation.problem) == ("network", "no /proc")


def test_nothing_to_be_had() -> None:
    assert find_isolation("auto", lambda namespaces: EPERM).problem == EPERM
    with pytest.raises(IsolationUnavailable) as caught:
        find_isolation("required", lambda namespaces: EPERM)
    assert caught.value.reason == EPERM


@pytest.mark.parametrize(
    ("switch", "value", "cure"),
    [
        ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor"),
        ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces"),
    ],
)
def test_known_switches_have_a_cure(tmp_path: Path, switch: str, value: str, cure: str) -> None:
    path = tmp_path / switch
    path.parent.mkdir()
    path.write_text(value + "\n")
    assert cure in _with_cure(EPERM, tmp_path)
    path.write_text("7\n")
    assert _with_cure(EPERM, tmp_path) == EPERM


@pytest.mark.skipif(find_isolation("auto").level != "full", reason="no PID namespaces here")
def test_an_engine_sees_itself_only() -> None:
    async def scenario() -> None:
        async with fake_pool(isolation="required") as pool:
            engine = await pool.start(fake_plan(), "r")
            outer, _, host = family(engine)
            for name in ("net", "pid", "ipc", "mnt"):
                ours = Path(f"/proc/self/ns/{name}").readlink()
                assert Path(f"/proc/{host.pid}/ns/{name}").readlink() != ours
            status = Path(f"/proc/{host.pid}/status").read_text()
            assert "NoNewPrivs:\t1" in status
            capabilities = int(status.partition("CapEff:\t")[2].split()[0], 16)
            assert capabilities <= 0b11111
            root = Path("/proc", str(host.pid), "root")
            seen = (root / "proc").iterdir()
            assert sorted(entry.name for entry in seen if entry.name.isdigit()) == ["1", "2"]
            assert list((root / "dev" / "shm").iterdir()) == []
            assert psutil.Process(outer.pid).memory_info().rss < 30 * 2**20

    asyncio.run(scenario())
