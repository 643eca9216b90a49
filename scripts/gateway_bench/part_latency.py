"""The part `latency`: what each server adds at half of what it can carry, at a steady rate."""

from dataclasses import replace

from gateway_bench.bodies import Load, apart
from gateway_bench.contenders import INHOUSE, STRAIGHT, Contender
from gateway_bench.measuring import Bench, Spread, number, remarks, say
from gateway_bench.native import Outcome
from gateway_bench.page import Aim, prose, table
from gateway_bench.part_load import SHOWN

_HEAD = ["", "server", "rate, /s", "p50, ms", "p99, ms", "added p50, ms", "added p99, ms"]
_WAYS = {"even": "evenly spaced", "poisson": "at random times (Poisson)"}
Pair = tuple[Outcome, Outcome]  # straight, and through the server, one after the other


def measure(bench: Bench) -> tuple[str, list[Aim]]:
    straight = bench.find(STRAIGHT)
    if straight is None:
        return "Without `straight` nothing can be added to it.", []
    rows: list[list[str]] = []
    aims: list[Aim] = []
    outcomes: list[Outcome] = []
    kinds = {
        "unary, 1 KB": Load(32),
        "stream, 1 KB, time to the first byte": replace(apart(256, 1024, 50), pace_us=2000),
    }
    for kind, load in kinds.items():
        for contender in bench.contenders:
            if contender is straight:
                continue
            asked, pairs = _half_load(bench, straight, contender, load)
            outcomes += [outcome for pair in pairs for outcome in pair]
            rows.append([kind, SHOWN.get(contender.name, contender.name), *_cells(asked, pairs)])
            if contender.name == INHOUSE and not load.is_stream:
                aims += _aims(pairs)
    text = (
        "Each is asked at half of the rate that it reached in a closed loop just before, and the "
        "upstream at the same rate straight, in turn. Requests are due "
        f"{_WAYS[bench.effort.arrivals]}; latency counts from when a request was due, so waiting "
        "for a free client is in it."
    )
    return "\n\n".join([prose(text), table(_HEAD, rows), remarks(bench, outcomes)]), aims


def _half_load(
    bench: Bench, straight: Contender, contender: Contender, load: Load
) -> tuple[float, list[Pair]]:
    most = bench.measure(contender, load)
    if most is None or not most.answers:
        return 0.0, []
    rate = most.answers / most.seconds / 2
    at_rate = replace(load, rate=round(rate, 2), arrivals=bench.effort.arrivals)
    say(f"half load of {contender.name}: {rate:.0f} a second")
    pairs = []
    for number_of_round in range(bench.effort.rounds):
        order = [straight, contender] if number_of_round % 2 == 0 else [contender, straight]
        found = {each.name: bench.measure(each, at_rate) for each in order}
        before, through = found[straight.name], found[contender.name]
        if before and through and through.answers:
            pairs.append((before, through))
    return rate, pairs


def _times(outcome: Outcome) -> dict[str, float]:
    return outcome.first_ms if outcome.events else outcome.whole_ms


def _added(pairs: list[Pair], quantile: str) -> Spread:
    return Spread.of([_times(b)[quantile] - _times(a)[quantile] for a, b in pairs])


def _cells(rate: float, pairs: list[Pair]) -> list[str]:
    if not pairs:
        return ["–"] * 5
    own = [Spread.of([_times(b)[q] for _, b in pairs]) for q in ("p50", "p99")]
    added = [_added(pairs, q) for q in ("p50", "p99")]
    return [number(rate), *(number(each.median) for each in own), *(each.shown for each in added)]


def _aims(pairs: list[Pair]) -> list[Aim]:
    if not pairs:
        return [Aim("added p50 ≤ 0.3 ms at half load", "–", None)]
    return [
        Aim(f"added {q} ≤ {aim} ms at half load", f"{each.shown} ms", each.median <= aim)
        for q, aim in (("p50", 0.3), ("p99", 1.5))
        for each in [_added(pairs, q)]
    ]
