"""Runs in rounds, contender after contender, and what is said of many of them."""

import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from gateway_bench.bodies import Load
from gateway_bench.contenders import LITELLM, Contender, Plan, started
from gateway_bench.native import Outcome, ToolFailed

_MANY = 32  # clients
Figures = dict[Load, dict[str, list[Outcome]]]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values and their extremes."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> "Spread":
        return Spread(statistics.median(values), min(values), max(values))

    @property
    def shown(self) -> str:
        if self.low == self.high:
            return number(self.median)
        return f"{number(self.median)} ({number(self.low)}–{number(self.high)})"


@dataclass(frozen=True, slots=True)
class Effort:
    """How long is measured. `minutes`: of slow readers."""

    seconds: float = 2.0
    warm_s: float = 0.4
    rounds: int = 3
    events: int = 100
    readers: int = 10_000
    minutes: float = 10.0
    arrivals: str = "even"


@dataclass(frozen=True, slots=True)
class Bench:
    """All contenders, asleep. `missing`: those that could not be started, and why."""

    plan: Plan
    effort: Effort
    contenders: tuple[Contender, ...]
    missing: Mapping[str, str]
    failures: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [contender.name for contender in self.contenders]

    def find(self, name: str) -> Contender | None:
        return next((each for each in self.contenders if each.name == name), None)

    def rounds(self, loads: Sequence[Load]) -> Figures:
        """Every load on every contender, in turn, as many times as there are rounds."""
        figures: Figures = {load: {name: [] for name in self.names} for load in loads}
        for round_number in range(self.effort.rounds):
            for load in loads:
                say(f"round {round_number + 1} of {self.effort.rounds}: {load.shown}")
                for contender in self.turn(round_number):
                    if round_number > 0 and is_too_much(contender, load):
                        continue
                    outcome = self.measure(contender, load)
                    if outcome is not None:
                        figures[load][contender.name].append(outcome)
        return figures

    def turn(self, round_number: int) -> tuple[Contender, ...]:
        """Who comes first changes, so that a machine that slows down slows all."""
        return self.contenders if round_number % 2 == 0 else self.contenders[::-1]

    def measure(self, contender: Contender, load: Load) -> Outcome | None:
        """One run; None if it failed, which is noted."""
        effort = self.effort
        try:
            outcome = contender.measure(self.plan, load, effort.seconds, effort.warm_s)
        except ToolFailed as error:
            self._note(contender, load, str(error))
            return None
        if outcome.failed:
            share = f"{outcome.failed} of {outcome.failed + outcome.answers} answers failed"
            self._note(contender, load, f"{share}: {outcome.complaint}")
        return outcome

    def _note(self, contender: Contender, load: Load, problem: str) -> None:
        self.failures.append(f"{contender.name}, {load.shown}: {problem}")
        say(f"  {self.failures[-1]}")


def is_too_much(contender: Contender, load: Load) -> bool:
    """Whether a server needs so long to work off what clients left that one round must do."""
    return contender.name == LITELLM and load.clients > _MANY


@contextmanager
def started_bench(plan: Plan, effort: Effort, wanted: Sequence[str]) -> Iterator[Bench]:
    """All that are wanted and can be started."""
    contenders, missing = [], {}
    with ExitStack() as stack:
        for name in wanted:
            say(f"starting {name}")
            try:
                contender = stack.enter_context(started(plan, name))
            except ToolFailed as error:
                missing[name] = str(error)
                say(f"  {error}")
                continue
            contender.sleep()
            contenders.append(contender)
        yield Bench(plan, effort, tuple(contenders), missing)


def spread(outcomes: Sequence[Outcome], figure: Callable[[Outcome], float]) -> Spread | None:
    return Spread.of([figure(outcome) for outcome in outcomes]) if outcomes else None


def ratio(
    one: Sequence[Outcome], other: Sequence[Outcome], figure: Callable[[Outcome], float]
) -> float | None:
    """Of the medians; None where there is nothing to compare."""
    above, below = spread(one, figure), spread(other, figure)
    return above.median / below.median if above and below and below.median else None


def remarks(bench: Bench, outcomes: Sequence[Outcome]) -> str:
    """How much others took of the server's core meanwhile, and what went wrong."""
    shares = [
        100 * max(0.0, each.core_busy_s - each.cpu_s + each.core_steal_s) / each.seconds
        for each in outcomes
    ]
    lines = []
    if shares:
        others = Spread.of(shares)
        lines.append(
            "Other work on the server's core, interrupts and stolen time included: "
            f"{others.median:.0f} % of the time in the median run, at most {others.high:.0f} %."
        )
    lines += [f"Not measured: {name}: {reason}." for name, reason in bench.missing.items()]
    if bench.failures:
        lines.append("What went wrong: " + "; ".join(bench.failures[:8]) + ".")
    return "\n\n".join(lines)


def number(value: float) -> str:
    """As people read it: 12,046; 58.3; 0.29."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
