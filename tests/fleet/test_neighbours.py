"""Whom a refusal names, and whom it does not."""

import pytest

from serve.errors import DoesNotFit, StartFailed
from serve.fleet.neighbours import naming_strangers

ALICE = "GPU 0: process 4711 (alice, python train.py, 20.0 GiB)"


def refused(device: str = "cuda", remedy: str | None = "less context") -> DoesNotFit:
    return DoesNotFit("m", device, 2, 1, remedy=remedy)


def failed(*finding: str) -> StartFailed:
    return StartFailed("m", "a cause", "/log", 1, "do", finding)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (refused(), f"less context; others are on the cards: {ALICE}"),
        (refused(remedy=None), f"others are on the cards: {ALICE}"),
        (refused("cpu"), "less context"),
        (failed("gpu_busy", "1", "2"), f"do; others are on the cards: {ALICE}"),
        (failed("sampler", "1024"), "do"),
        (failed(), "do"),
    ],
)
def test_who_takes_the_memory_is_named(error: DoesNotFit | StartFailed, remedy: str) -> None:
    assert naming_strangers(error, (ALICE,)).remedy == remedy
    assert naming_strangers(error, ()) is error


def test_a_crowd_is_counted() -> None:
    remedy = naming_strangers(refused(), (ALICE,) * 11).remedy
    assert remedy is not None and remedy.count("alice") == 8 and remedy.endswith("; and 3 more")
