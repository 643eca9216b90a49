"""`inhouse serve auto`: which model a machine gets."""

import os
from pathlib import Path

import pytest

from serve.catalog import load_catalog
from serve.cli.auto import chosen, this_machine
from serve.errors import DoesNotFit
from serve.hardware import Cpu, Machine, imagine
from serve.settings import Settings, load

GIB = 2**30


@pytest.fixture
def settings(home: Path) -> Settings:
    return load({}, os.environ)


def on(settings: Settings, place: Machine) -> str:
    (name,) = chosen(settings, ("auto",), place)
    return name


def processor(free_gib: float, bandwidth: int | None) -> Machine:
    size = int(free_gib * GIB)
    return Machine(
        Cpu("a CPU", (0, 1), ((0, 1),), frozenset({"avx2"}), size, size, bandwidth=bandwidth)
    )


@pytest.mark.parametrize(
    ("cards", "model"),
    [
        ("8x H200", "qwen3-235b-a22b-instruct-2507"),
        ("1x H100", "gpt-oss-120b"),
        ("RTX 4090", "gpt-oss-20b"),
        ("RTX 3060", "qwen3-8b"),
    ],
)
def test_the_best_that_a_machine_holds(settings: Settings, cards: str, model: str) -> None:
    assert on(settings, imagine(cards)).partition(":")[0] == model


def test_more_machine_is_never_a_lesser_model(settings: Settings) -> None:
    ranks = {spec.name: spec.facts.recommended or 0 for spec in load_catalog().specs}
    cards = ("RTX 3060", "RTX 4090", "L40S", "H100", "2x H100", "4x H100", "8x H200")
    taken = [ranks[on(settings, imagine(each))] for each in cards]
    assert taken == sorted(taken, reverse=True)


def test_a_processor_gets_what_it_can_read_aloud(settings: Settings) -> None:
    slow, fast = processor(20, 4 * 10**9), processor(200, 400 * 10**9)
    assert on(settings, slow) == "smollm2-135m-instruct"
    assert on(settings, fast).startswith("qwen3-")


def test_where_nothing_is_quick_the_smallest_is_better_than_none(settings: Settings) -> None:
    assert on(settings, processor(20, 10**8)) == "smollm2-135m-instruct"


def test_what_cannot_be_cut_as_wished_is_passed_over(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INHOUSE_ENGINE_TENSOR_PARALLEL", "3")
    # Of the recommended ones only the starter's 9 heads are divided by 3.
    assert on(load({}, os.environ), imagine("3x H100")) == "smollm2-135m-instruct"


def test_policy_is_heeded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INHOUSE_POLICY_SOURCES", "wheel")
    assert on(load({}, os.environ), imagine("8x H200")) == "smollm2-135m-instruct"


def test_a_machine_that_holds_nothing_is_told(settings: Settings) -> None:
    with pytest.raises(DoesNotFit):
        on(settings, processor(0.5, 10**10))


def test_names_stay_and_none_is_served_twice(settings: Settings) -> None:
    place = processor(20, 4 * 10**9)
    assert chosen(settings, ("qwen3-8b",), place) == ("qwen3-8b",)
    names = ("smollm2-135m-instruct", "auto")
    assert chosen(settings, names, place) == ("smollm2-135m-instruct",)


def test_the_processor_s_memory_is_measured_before_it_is_judged(settings: Settings) -> None:
    here = this_machine(settings)
    assert here.cpu.bandwidth, "of a busy machine it is measured too, but not kept"
    (name,) = chosen(settings, ("auto",))
    assert name in {spec.name for spec in load_catalog().specs if spec.facts.recommended}
