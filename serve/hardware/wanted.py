"""Machines that one does not have: what is written after `--gpus`, as if it had been measured."""

import difflib
import re
from collections.abc import Iterable

from serve.errors import SettingsError
from serve.hardware.known import known_gpus
from serve.hardware.machine import Cpu, Gpu, KnownGpu, Link, Machine
from serve.units import parse_bytes, show_bytes

MOST_GPUS = 72  # one NVLink domain of the largest kind (GB200 NVL72)
_EXAMPLE = "4x RTX 4090"
_LEAST_BYTES, _MOST_BYTES = 2**30, 2**40
# A card of which only the memory is said is meant to show how much fits, so it can do what every
# card of the data centre can since 2022, FP8 for instance.
_NAMELESS_CAPABILITY = (9, 0)
_PARTS = re.compile(r"[+,;]")
_COUNT_FIRST = re.compile(r"(-?\d+) ?[x×*] ?(.*)", re.IGNORECASE | re.ASCII)
# "A100x8" and "RTX A6000 x 2", but not "rtx4090".
_COUNT_LAST = re.compile(r"(.+?)(?: |(?<=\d))[x×*] ?(-?\d+)", re.IGNORECASE | re.ASCII)
_NUMBER_AND_UNIT = re.compile(r"\d+(\.\d+)? ?([kmgt](i?b)?|b)?", re.IGNORECASE | re.ASCII)
# Nobody measured it and no engine runs on it: no cores, no memory.
_NO_CPU = Cpu("not said", (), (), frozenset(), 0, 0)


def imagine(text: str) -> Machine:
    """A machine with the cards that `text` names, all of them free.

    `"4x RTX 4090"`, `"1x H100 + 2x L40S"`, `"H100 80GB HBM3"`, or how much memory CUDA sees on
    each: `"2x79.2GiB"`. Of kinds that share a name ("A100") it is the commonest; the cards' names
    say which. SettingsError ("plan", "gpus") for what is no card, with a near match.
    """
    wanted = [card for part in _PARTS.split(text) for card in _cards(part)]
    if len(wanted) > MOST_GPUS:
        raise _refusal(f"{len(wanted)} cards are more than one machine has (at most {MOST_GPUS})")
    gpus = tuple(_gpu(index, *card) for index, card in enumerate(wanted))
    return Machine(_NO_CPU, gpus, links=tuple(_links(gpus)), is_imagined=True)


def _cards(part: str) -> list[tuple[int, KnownGpu | None]]:
    """Memory and data sheet of each card in `"4x RTX 4090"`."""
    count, name = _counted(" ".join(part.split()))
    if not 1 <= count <= MOST_GPUS:
        raise _refusal(f"expected 1 to {MOST_GPUS} cards: {part.strip()!r}")
    if _NUMBER_AND_UNIT.fullmatch(name):
        known = known_gpus(name)  # a name may look like a number: 4090
        return [(known[0].memory_bytes, known[0]) if known else (_memory(name), None)] * count
    kinds = known_gpus(name) if name else ()
    if not kinds:
        raise _unknown(name)
    return [(kinds[0].memory_bytes, kinds[0])] * count


def _counted(part: str) -> tuple[int, str]:
    if first := _COUNT_FIRST.fullmatch(part):
        return int(first[1][:9]), first[2]
    if last := _COUNT_LAST.fullmatch(part):
        return int(last[2][:9]), last[1]
    return 1, part


def _memory(text: str) -> int:
    try:
        n_bytes = parse_bytes(text)
    except ValueError as error:
        raise _refusal(str(error), "79.2GiB") from error
    if not _LEAST_BYTES <= n_bytes <= _MOST_BYTES:
        raise _refusal(f"no card has {show_bytes(n_bytes)}: {text!r}", "79.2GiB")
    return n_bytes


def _gpu(index: int, memory_bytes: int, known: KnownGpu | None) -> Gpu:
    return Gpu(
        index=index,
        uuid=f"imagined-{index}",
        name=known.name if known else f"a GPU of {show_bytes(memory_bytes)}",
        total_bytes=memory_bytes,
        free_bytes=memory_bytes,
        compute_capability=known.compute_capability if known else _NAMELESS_CAPABILITY,
        known=known,
    )


def _links(gpus: tuple[Gpu, ...]) -> Iterable[Link]:
    """NVLink between cards of one kind that have it: all of a box, or those that a bridge joins."""
    for second in gpus:
        for first in gpus[: second.index]:
            yield Link(first.index, second.index, "NVLINK" if _is_joined(first, second) else "NODE")


def _is_joined(first: Gpu, second: Gpu) -> bool:
    kind = first.known
    if kind is None or kind is not second.known or not kind.link_bandwidth:
        return False
    return not kind.bridged or first.index // kind.bridged == second.index // kind.bridged


def _unknown(name: str) -> SettingsError:
    names = {gpu.name.lower(): gpu.name for gpu in known_gpus()}
    names |= {name.rpartition(" ")[0]: full for name, full in names.items()}
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    shown = list(dict.fromkeys(names[match] for match in near))
    problem = f"no such card is known: {name!r}" if name else f"expected cards, as in {_EXAMPLE!r}"
    return _refusal(problem, " or ".join(shown) or _EXAMPLE)


def _refusal(problem: str, suggestion: str = _EXAMPLE) -> SettingsError:
    return SettingsError("plan", "gpus", problem, suggestion)
