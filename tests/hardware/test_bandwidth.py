"""The speed of this machine's memory: plausible, kept, and not kept where it means nothing."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from serve.hardware import Cpu, read_machine
from serve.hardware.bandwidth import known_bandwidth, measure_bandwidth
from tests.hardware.machines import CPU

HERE = replace(
    CPU, cores=tuple(sorted(os.sched_getaffinity(0)))[:1], nodes=((0,),), free_bytes=2**30
)


def test_it_is_measured_on_the_cores_that_there_are(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    measured = measure_bandwidth(tmp_path / "home", HERE)
    assert measured is not None
    assert 10**8 < measured < 10**13, "more than a disk, less than any cache"
    assert os.sched_getaffinity(0) == before, "only the threads that measured were bound"


def test_what_was_measured_while_others_had_the_cores_is_not_kept(tmp_path: Path) -> None:
    same_core_twice = replace(HERE, cores=HERE.cores * 2)
    assert measure_bandwidth(tmp_path, same_core_twice)
    assert not (tmp_path / "bandwidth.json").exists()


def test_it_is_read_back_only_on_the_same_machine(tmp_path: Path) -> None:
    keep(tmp_path, "Big CPU, 2+2 cores", 123)
    assert known_bandwidth(tmp_path, CPU) == 123
    assert known_bandwidth(tmp_path, replace(CPU, name="Other CPU")) is None
    assert known_bandwidth(tmp_path, replace(CPU, nodes=((0, 1),))) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '"x"', "\x00"])
def test_a_file_that_is_not_ours_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "bandwidth.json").write_text(content)
    assert known_bandwidth(tmp_path, CPU) is None


@pytest.mark.parametrize("bandwidth", [0, -5, "many", None, True, 1.5])
def test_a_figure_that_is_none_counts_as_none(tmp_path: Path, bandwidth: object) -> None:
    keep(tmp_path, "Big CPU, 2+2 cores", bandwidth)
    assert known_bandwidth(tmp_path, CPU) is None


@pytest.mark.parametrize("cpu", [replace(HERE, free_bytes=2**20), replace(HERE, cores=())])
def test_without_room_or_cores_nothing_is_measured(tmp_path: Path, cpu: Cpu) -> None:
    assert measure_bandwidth(tmp_path, cpu) is None
    assert not (tmp_path / "bandwidth.json").exists()


def test_a_core_that_is_not_ours_ends_it_at_once(tmp_path: Path) -> None:
    assert measure_bandwidth(tmp_path, replace(HERE, cores=(HERE.cores[0], 100_000))) is None


def test_a_home_that_cannot_be_written_loses_only_the_memory_of_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert measure_bandwidth(tmp_path / "file", HERE)


def test_a_machine_is_measured_when_asked_and_otherwise_only_remembered(tmp_path: Path) -> None:
    assert read_machine().cpu.bandwidth is None
    assert read_machine(home=tmp_path).cpu.bandwidth is None
    assert read_machine(home=tmp_path, is_measured=True).cpu.bandwidth
    cpu = read_machine().cpu
    keep(tmp_path, f"{cpu.name}, {'+'.join(str(len(node)) for node in cpu.nodes)} cores", 77)
    assert read_machine(home=tmp_path).cpu.bandwidth == 77
    assert read_machine(home=tmp_path, is_measured=True).cpu.bandwidth == 77


def keep(home: Path, machine: str, bandwidth: object) -> None:
    record = {"machine": machine, "bandwidth": bandwidth, "measured_at": 0}
    (home / "bandwidth.json").write_text(json.dumps(record))
