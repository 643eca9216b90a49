"""The part `load`: what each server carries, and at what cost."""

from collections.abc import Mapping, Sequence

from gateway_bench.bodies import KIB, Load, apart
from gateway_bench.contenders import INHOUSE, LITELLM, OTHER, OVER_TCP, ROUTER, STRAIGHT
from gateway_bench.machine import MIB
from gateway_bench.measuring import Bench, Figures, Spread, number, ratio, remarks, spread
from gateway_bench.native import Outcome, ToolFailed
from gateway_bench.page import Aim, prose, table

CLIENTS = (1, 32, 256)
SIZES = (KIB, 128 * KIB)
SHOWN = {
    STRAIGHT: "straight", INHOUSE: "Inhouse", LITELLM: "LiteLLM", ROUTER: "vllm-router",
    OTHER: "Inhouse, the other tree", OVER_TCP: "Inhouse, upstream by TCP",
}  # fmt: skip
_HEAD = ["load", "server", "", "per CPU-second", "CPU, s", "p50, ms", "p99, ms", "RSS, MiB"]


def loads(events: int) -> list[Load]:
    unary = [Load(clients, size) for size in SIZES for clients in CLIENTS]
    return unary + [apart(clients, size, events) for size in SIZES for clients in CLIENTS]


def measure(bench: Bench) -> tuple[str, list[Aim]]:
    figures = bench.rounds(loads(bench.effort.events))
    streams = {load: figures[load] for load in figures if load.is_stream}
    unary = {load: figures[load] for load in figures if not load.is_stream}
    parts = [
        "**Answers in one piece**, so many clients that each ask again at once. Latencies are "
        "those of such a closed loop.",
        results(bench, unary, "requests/s"),
        prose(
            f"**Streams** of {bench.effort.events} events of 185 bytes, each written apart by the "
            "upstream, at the steps of an engine, 40,000 events/s in all at most: those who carry "
            "them all are told apart by their CPU. p50 and p99 are those of the first byte."
        ),
        results(bench, streams, "events/s"),
        "**Inhouse against the peers**, by what one CPU-second carries (by what came in a second "
        "in brackets).",
        _ratios(figures),
        remarks(bench, [o for by in figures.values() for each in by.values() for o in each]),
    ]
    return "\n\n".join(parts), _aims(figures)


def check(bench: Bench) -> str:
    """All loads once on nobody but the upstream. ToolFailed if what clients saw cannot be."""
    figures = bench.rounds(loads(bench.effort.events))
    for load, by_name in figures.items():
        for outcome in by_name[STRAIGHT]:
            _check(load, outcome)
    if bench.failures:
        raise ToolFailed("; ".join(bench.failures))
    return results(bench, figures, "a second")


def _check(load: Load, outcome: Outcome) -> None:
    if load.is_stream:  # with the last event and [DONE]; streams may have begun and not ended
        whole = load.events + 2
        is_right = abs(outcome.events - whole * outcome.answers) <= whole * load.clients
        is_right &= outcome.events == outcome.frames > 0
    else:
        is_right = outcome.answers > 0 == outcome.events
    if not is_right:
        raise ToolFailed(f"{load.shown}: what clients counted is wrong: {outcome}")


def results(bench: Bench, figures: Figures, unit: str) -> str:
    rows = []
    for load, by_name in figures.items():
        for at, name in enumerate(bench.names):
            shown = SHOWN.get(name, name)
            rows.append(["" if at else load.shown, shown, *_cells(load, by_name[name])])
    head = [*_HEAD[:2], unit, *_HEAD[3:]]
    return table(head, rows)


def _cells(load: Load, outcomes: Sequence[Outcome]) -> list[str]:
    if not outcomes:
        return ["–"] * 6
    rate = Spread.of([each.rate(load.is_stream) for each in outcomes])
    cost = Spread.of([each.per_cpu_s(load.is_stream) for each in outcomes])
    used = Spread.of([each.cpu_s for each in outcomes])
    times = [each.first_ms if load.is_stream else each.whole_ms for each in outcomes]
    quantiles = [Spread.of([time[q] for time in times]).median for q in ("p50", "p99")]
    memory = Spread.of([each.resident_bytes / MIB for each in outcomes])
    shown = [number(each) if each >= 0 else "–" for each in quantiles]
    if not used.median:  # nobody between clients and upstream
        return [rate.shown, "–", "–", *shown, "–"]
    return [rate.shown, cost.shown, f"{used.median:.2f}", *shown, f"{memory.high:.0f}"]


def _ratios(figures: Figures) -> str:
    rows = []
    for load, by_name in figures.items():
        cells = []
        for peer in (ROUTER, LITELLM):
            ours, theirs = by_name.get(INHOUSE, []), by_name.get(peer, [])
            cost = ratio(ours, theirs, lambda each: each.per_cpu_s(each.events > 0))
            rate = ratio(ours, theirs, lambda each: each.rate(each.events > 0))
            cells.append(f"{number(cost)} × ({number(rate)} ×)" if cost and rate else "–")
        rows.append([load.shown, *cells])
    return table(["load", "Inhouse ÷ vllm-router", "Inhouse ÷ LiteLLM"], rows)


def _aims(figures: Figures) -> list[Aim]:
    unary = {load: figures[load] for load in figures if not load.is_stream}
    streams = {load: figures[load] for load in figures if load.is_stream}
    long = next(load for load in unary if load.clients == 32 and load.size > KIB)
    short = next(load for load in unary if load.clients == 32 and load.size == KIB)
    memory = [each.resident_bytes for by in figures.values() for each in by.get(INHOUSE, [])]
    most = max(memory) / MIB if memory else None
    return [
        at_least("unary requests/s on one core, 1 KB, 32 clients", 10_000, figures[short]),
        _against(unary, ROUTER, 1.0, "requests per CPU-second against vllm-router"),
        _against(unary, LITELLM, 100.0, "requests per CPU-second against LiteLLM"),
        _against(streams, ROUTER, 1.0, "events per CPU-second against vllm-router"),
        at_least("128 KB prompts/s, 32 clients", 1_500, figures[long]),
        Aim(
            "resident memory under these loads ≤ 80 MiB",
            f"{most:.0f} MiB" if most else "–", most <= 80 if most else None,
        ),
    ]  # fmt: skip


def at_least(text: str, aim: float, by_name: Mapping[str, Sequence[Outcome]]) -> Aim:
    """By what came in a second; what one CPU-second carries is told beside it."""
    outcomes = by_name.get(INHOUSE, [])
    text = f"{text} ≥ {number(aim)}"
    rate = spread(outcomes, lambda each: each.rate(each.events > 0))
    cost = spread(outcomes, lambda each: each.per_cpu_s(each.events > 0))
    if rate is None or cost is None:
        return Aim(text, "–", None)
    shown = f"{rate.shown}; {number(cost.median)} per CPU-second"
    return Aim(text, shown, rate.median >= aim)


def _against(figures: Figures, peer: str, aim: float, text: str) -> Aim:
    """Met if it is at 1 KB and 32 clients; the least and the most of all loads are told."""
    ratios = {
        load: ratio(by.get(INHOUSE, []), by.get(peer, []), lambda e: e.per_cpu_s(e.events > 0))
        for load, by in figures.items()
    }
    known = {load: each for load, each in ratios.items() if each is not None}
    main = next((each for load, each in known.items() if _is_main(load)), None)
    text = f"{text} ≥ {number(aim)} ×, 1 KB, 32 clients"
    if main is None:
        return Aim(text, "–", None)
    least, most = min(known.values()), max(known.values())
    shown = f"{number(main)} × (all loads: {number(least)} to {number(most)} ×)"
    return Aim(text, shown, main >= aim)


def _is_main(load: Load) -> bool:
    return load.clients == 32 and load.size == KIB
