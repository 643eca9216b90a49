"""The part `chunks`: how many events of streams a server carries when nothing holds them back."""

from gateway_bench.bodies import Load
from gateway_bench.contenders import INHOUSE, ROUTER
from gateway_bench.measuring import Bench, Figures, number, ratio, remarks, spread
from gateway_bench.page import Aim, prose, table
from gateway_bench.part_load import SHOWN, at_least

_EVENTS = 400
_CLIENTS = 32


def measure(bench: Bench) -> tuple[str, list[Aim]]:
    each, several = (Load(_CLIENTS, events=_EVENTS, per_write=count) for count in (1, 8))
    figures = bench.rounds([each, several])
    rows = []
    for load, by_name in figures.items():
        for name, outcomes in by_name.items():
            rate = spread(outcomes, lambda each: each.rate(True))
            cost = spread(outcomes, lambda each: each.per_cpu_s(True))
            cut = spread(outcomes, lambda each: each.events / each.frames if each.frames else 0.0)
            written = f"{load.per_write} in each write"
            shown = [made.shown if made and made.median else "–" for made in (rate, cost)]
            rows.append(
                [written, SHOWN.get(name, name), *shown, number(cut.median) if cut else "–"]
            )
    text = (
        f"{_CLIENTS} clients, streams of {_EVENTS} events, written as fast as they are taken: one "
        "event a write, or eight. Events in a piece: how many stood in one chunk of HTTP when "
        "clients got it; a server that passes on what it reads puts what it read at once into one."
    )
    head = ["upstream", "server", "events/s", "events per CPU-second", "events in a piece"]
    outcomes = [each for by_name in figures.values() for some in by_name.values() for each in some]
    parts = [prose(text), table(head, rows), remarks(bench, outcomes)]
    return "\n\n".join(parts), _aims(figures, several)


def _aims(figures: Figures, several: Load) -> list[Aim]:
    aims = [at_least("events/s when reads carry several", 250_000, figures[several])]
    for load, by_name in figures.items():
        made = ratio(
            by_name.get(INHOUSE, []), by_name.get(ROUTER, []), lambda each: each.per_cpu_s(True)
        )
        text = f"events per CPU-second against vllm-router ≥ 1 ×, {load.per_write} in each write"
        shown = f"{number(made)} ×" if made else "–"
        aims.append(Aim(text, shown, made >= 1 if made else None))
    return aims
