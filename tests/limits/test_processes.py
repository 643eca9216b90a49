"""Several processes on one table: exact, whoever is killed when."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from serve.errors import ControlLost, NotWritable, QueueFull
from serve.limits import Admission, Ask, Table, Ticket
from serve.limits.rates import Counts
from serve.quota import Limits
from tests.limits.asking import ask
from tests.limits.racer import DAILY_TOKENS

ROOT = Path(__file__).parents[2]
N_RACERS = 8
Racer = subprocess.Popen[str]


@contextmanager
def racers(file: Path, requests: int, pool: Path) -> Iterator[list[Racer]]:
    """All of them ready, none of them running yet."""
    pool.mkdir()
    racing = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.limits.racer", str(file), str(slot)]
            + [str(requests), str(pool)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for slot in range(N_RACERS)
    ]
    try:
        for racer in racing:
            assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
        yield racing
    finally:
        for racer in racing:
            racer.kill()
            racer.communicate()


def start(racing: list[Racer]) -> None:
    for racer in racing:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()


def tenant_s(table: Table) -> Counts:
    with table.changing():
        return table.read(table.row("tenant", "t"))


def test_eight_processes_never_overshoot(tmp_path: Path) -> None:
    Table.make(tmp_path / "limits", N_RACERS)
    with racers(tmp_path / "limits", 3000, tmp_path / "pool") as racing:
        start(racing)
        outputs = [racer.communicate(timeout=60)[0] for racer in racing]
        assert [racer.returncode for racer in racing] == [0] * N_RACERS
    # Reservations are exact here, so the budget is used up to the last request that fits.
    assert sum(map(int, outputs)) == DAILY_TOKENS // 7
    counts = tenant_s(Table(tmp_path / "limits"))
    assert (counts.in_flight, counts.reserved_tokens, counts.reserved_nanos) == (0, 0, 0)
    assert counts.day_tokens == DAILY_TOKENS // 7 * 7


def test_what_a_killed_process_had_is_given_back(tmp_path: Path) -> None:
    """Killed wherever it was: inside of a critical section too, sometimes."""
    Table.make(tmp_path / "limits", N_RACERS)
    table = Table(tmp_path / "limits")
    with racers(tmp_path / "limits", 0, tmp_path / "pool") as racing:
        start(racing)
        while tenant_s(table).day_tokens < 500:
            pass
        for slot, racer in enumerate(racing):
            racer.kill()
            racer.wait()
            used = tenant_s(table).day_tokens
            table.clear_slot(slot)
            others = racing[slot + 1 :]
            assert [other.poll() for other in others] == [None] * len(others)
            while others and tenant_s(table).day_tokens < used + 70:
                pass  # the others go on
    for owner in ("key", "tenant", "model"):
        with table.changing():
            name = {"key": "k", "tenant": "t", "model": "m"}[owner]
            counts = table.read(table.row(owner, name))
        assert (counts.in_flight, counts.reserved_tokens, counts.reserved_nanos) == (0, 0, 0)
        assert (counts.waiting, counts.waiting_tokens) == (0, 0)


def test_a_cleared_slot_gives_back_only_its_own(tmp_path: Path) -> None:
    Table.make(tmp_path / "limits", 2)
    here, there = (Admission(Table(tmp_path / "limits", slot), 10) for slot in (0, 1))
    limited = ask(10, of_key=Limits(concurrency=4, tokens_per_day=40))
    mine: Ticket | None = here.try_enter(limited)
    lost = [there.try_enter(limited) for _ in range(3)]
    Table(tmp_path / "limits").clear_slot(1)
    assert [here.try_enter(limited) is not None for _ in range(3)] == [True] * 3
    for ticket in lost:  # it was alive after all: what it used counts, nothing is given back twice
        assert ticket is not None
        ticket.settle(0, 0)
    assert mine is not None
    mine.settle(10, 0)
    assert here.try_enter(ask(0, of_key=Limits(concurrency=4, tokens_per_day=40))) is not None


def test_a_full_table_forgets_who_was_away_longest(tmp_path: Path) -> None:
    Table.make(tmp_path / "limits", 1, rows=64)
    admission = Admission(Table(tmp_path / "limits"), 10)
    limits = Limits(concurrency=1)
    running = [admission.try_enter(ask(key=f"busy{n}", of_key=limits)) for n in range(63)]
    for number in range(200):  # all of them share the one row that is left
        ticket = admission.try_enter(ask(key=f"k{number}", of_key=limits))
        assert ticket is not None
        ticket.settle(1, 0)
    for ticket in running:
        assert ticket is not None
        ticket.settle(1, 0)
    with Table(tmp_path / "limits").changing():
        pass
    assert admission.try_enter(ask(key="busy7", of_key=limits)) is not None


def test_more_parties_than_places_to_note_them(tmp_path: Path) -> None:
    """Only those who are in need one."""
    Table.make(tmp_path / "limits", 2, rows=64)
    here, there = (Admission(Table(tmp_path / "limits", slot), 10) for slot in (0, 1))
    limits = Limits(concurrency=100, tokens_per_day=10**6)

    def asked(number: int) -> Ask:
        keys = ask(5, key=f"k{number % 12}", of_key=limits, of_tenant=limits, of_model=limits)
        return replace(keys, model=f"m{number // 12}")

    running = [here.try_enter(asked(number)) for number in range(50)]
    other = there.try_enter(asked(0))
    for number in [*range(50, 144), *range(50, 144)]:
        ticket = here.try_enter(asked(number))
        assert ticket is not None
        ticket.settle(1, 0)
    table = Table(tmp_path / "limits")
    assert (tenant_s(table).in_flight, tenant_s(table).reserved_tokens) == (51, 255)
    table.clear_slot(1)
    assert (tenant_s(table).in_flight, tenant_s(table).reserved_tokens) == (50, 250)
    for late in (*running, other):
        assert late is not None
        late.settle(5, 0)
    assert (tenant_s(table).in_flight, tenant_s(table).reserved_tokens) == (0, 0)
    running = [here.try_enter(asked(number)) for number in range(64)]
    with pytest.raises(QueueFull):
        here.try_enter(asked(64))
    table.clear_slot(0)
    assert (tenant_s(table).in_flight, tenant_s(table).day_tokens) == (0, 188 + 51 * 5)


def test_a_strange_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ControlLost):
        Table(tmp_path / "nothing")
    (tmp_path / "strange").write_bytes(b"x" * 5000)
    with pytest.raises(ControlLost):
        Table(tmp_path / "strange")
    with pytest.raises(NotWritable):
        Table.make(tmp_path / "no" / "folder", 1)
    Table.make(tmp_path / "limits", 2)
    with pytest.raises(ValueError, match="slot 2"):
        Table(tmp_path / "limits", 2)
