"""SIGKILL of each process of the real stack: nothing is orphaned, what should come back does."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.engine.stack import Stack, is_alive, running, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


@pytest.fixture
def own(home: Path, short_dir: Path) -> Iterator[Stack]:
    with running(Stack(home, short_dir / "run")) as stack:
        yield stack


def kill_and_see_it_come_back(own: Stack, role: str) -> None:
    """SIGKILL one process of the engine: noticed at once, nothing left, then served again."""
    before = own.model()
    guard = own.engine_process("guard")
    family = [guard.pid, *(process.pid for process in guard.children(recursive=True))]
    own.engine_process(role).kill()
    wait_until(lambda: own.model().state != "ready", 1.5, f"the death of {role} is noticed")
    wait_until(lambda: not any(map(is_alive, family)), 5, f"nothing is left of {role}'s engine")
    wait_until(lambda: own.model().state == "ready", 120, f"back after the death of {role}")
    assert own.model().restarts == before.restarts + 1
    assert own.ask().status_code == 200


def test_whatever_dies_comes_back_and_leaves_nothing(own: Stack) -> None:
    # four deaths; a fifth within ten minutes would rightly be a quarantine
    for role in ("VLLM::Worker", "api", "VLLM::EngineCore", "guard"):
        kill_and_see_it_come_back(own, role)

    engine_pid = own.model().pid
    (gateway,) = own.status().gateways
    psutil.Process(gateway.pid).kill()
    assert own.ask().status_code == 200  # it waited in the backlog of the supervisor's socket
    assert own.model().pid == engine_pid
    assert own.status().gateways[0].pid != gateway.pid


def test_a_dead_supervisor_takes_everything_along(own: Stack) -> None:
    pids = own.pids()
    assert own.process is not None
    own.process.kill()
    own.process.wait()
    wait_until(lambda: not any(map(is_alive, pids)), 5.5, f"nothing of {pids} is left")


def test_a_supervisor_that_comes_back_adopts_the_engine(own: Stack) -> None:
    before = own.model()
    assert own.process is not None
    own.process.kill()
    own.process.wait()
    own.start(timeout_s=20)
    after = own.model()
    assert (after.pid, after.socket) == (before.pid, before.socket)
    assert own.ask().status_code == 200
    assert own.stop() == 0
