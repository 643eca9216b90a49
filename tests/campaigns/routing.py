"""The choice of a replica over simulated traffic: what it promises, whatever comes."""

import random
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import get_args

from serve.roster.hashing import BLOCK_BYTES
from serve.roster.roster import Routing
from tests.campaigns.report import Report
from tests.roster.simulation import BYTES_PER_TOKEN, Outcome, Traffic, simulate

PROMISE = (
    "Simulated conversations of many turns over replicas that are LRU caches, with sizes, numbers "
    "and timing by chance, under every strategy: nobody is overloaded for what it has cached, "
    "everybody gets work, every lease ends, the index stays within its bound. And where all caches "
    "together hold a third of 100 conversations of 8 turns, `prefix` finds as much as one replica "
    "with all the cache, less 5 points at most; over four replicas and more, questions about "
    "documents find twice as much of them as with `round-robin`."
)
_FEW = 100  # too few for processes of their own
_MOST_LESS = 0.05  # of the cached share: each has a copy of what all begin with
_LEAST_OF_FAIR_SHARE = 0.25
# Both generations of the index: 1.5 caches of text each, and what one more prompt adds.
_CACHES_INDEXED = 3.0


def run(
    count: int, seed: int, place: Path | None = None, told: Callable[[str], None] = lambda _: None
) -> Report:
    """`count` runs of each other traffic."""
    report = Report("routing", PROMISE, ("traffic", "replicas", "less than on one replica"))
    seeds = range(seed * 1_000_000, seed * 1_000_000 + count)
    if count <= _FEW:
        trials = map(_trial, seeds)
        return _told_of(trials, seeds, report, told)
    with ProcessPoolExecutor() as processes:
        return _told_of(processes.map(_trial, seeds, chunksize=20), seeds, report, told)


def _told_of(
    trials: Iterable[tuple[tuple[str, ...], list[str]]],
    seeds: range,
    report: Report,
    told: Callable[[str], None],
) -> Report:
    for number, (kind, problems) in zip(seeds, trials, strict=True):
        if problems:
            problem = f"{kind[0]}, {kind[1]} replicas, seed {number}: {'; '.join(problems)}"
            report.failed(problem, *kind)
            told(problem)
        else:
            report.passed(*kind)
    return report


def _trial(seed: int) -> tuple[tuple[str, ...], list[str]]:
    """Of what kind it was, as the report has it, and what was not kept."""
    rng = random.Random(seed)
    kind = rng.choices(("any", "conversations", "documents"), (23, 1, 1))[0]
    if kind == "any":
        traffic, routing = _any(rng), rng.choice(get_args(Routing))
        outcome = simulate(traffic, routing, seed)
        if routing == "round-robin":
            outcome.overload = 0  # whose turn it is gets it, busy or not
        return (f"any, {routing}", f"{traffic.replicas}", ""), _kept(traffic, outcome)
    if kind == "conversations":
        traffic = Traffic(replicas=rng.choice((2, 4)), at_once=rng.choice((4, 8, 16)))
        prefix = simulate(traffic, "prefix", seed)
        single = simulate(traffic.on_one(), "prefix", seed)
        less = max(0.0, single.cached_share - prefix.cached_share)
        problems = [*_kept(traffic, prefix), *_as_one(prefix, single)]
        return (kind, f"{traffic.replicas}", _points(less)), problems
    traffic = _documents(rng)
    prefix = simulate(traffic, "prefix", seed)
    problems = [*_kept(traffic, prefix), *_twice(traffic, prefix, seed)]
    return (kind, f"{traffic.replicas}", ""), problems


def _points(less: float) -> str:
    whole = int(less * 100)
    return f"{whole} to {whole + 1} points"


def _any(rng: random.Random) -> Traffic:
    conversations = rng.randint(5, 40)
    return Traffic(
        replicas=rng.randint(2, 12),
        conversations=conversations,
        turns=rng.randint(1, 8),
        active=rng.randint(1, conversations),
        at_once=rng.choice((1, 4, 16, 64)),
        system_bytes=rng.choice((0, 300, 2048, 16384)),
        first_bytes=rng.choice((0, 0, 3000, 20000)),
        share=rng.choice((0.05, 0.3, 1, 5)),
    )


def _documents(rng: random.Random) -> Traffic:
    return Traffic(
        replicas=rng.choice((4, 8)),
        at_once=rng.choice((4, 8, 16)),
        system_bytes=512,
        first_bytes=8000,
        question_bytes=(50, 300),
        answer_bytes=(100, 500),
    )


def _kept(traffic: Traffic, outcome: Outcome) -> list[str]:
    """What is promised of any traffic, and was not kept."""
    problems = []
    if outcome.overload:
        problems.append(f"{outcome.overload} too many for a busy replica")
    if outcome.left_running:
        problems.append(f"{outcome.left_running} leases did not end")
    requests = traffic.conversations * traffic.turns
    least = requests / traffic.replicas * _LEAST_OF_FAIR_SHARE
    if traffic.at_once == 1 or requests < 100 * traffic.replicas:
        least = 0  # too few for a fair share, or nobody ever waits
    busy = len(outcome.picks)
    fewest = min(outcome.picks.values()) if busy == traffic.replicas else 0
    if fewest < least:
        problems.append(f"a replica had {fewest} of {requests} requests")
    cache_blocks = traffic.kv_tokens * BYTES_PER_TOKEN / BLOCK_BYTES
    prompt_blocks = outcome.longest_prompt / BLOCK_BYTES + 1
    most = traffic.replicas * (_CACHES_INDEXED * cache_blocks * 2 + 2 * prompt_blocks)
    if outcome.index_entries > most:
        problems.append(f"{outcome.index_entries} entries in an index for {most:.0f}")
    return problems


def _as_one(prefix: Outcome, single: Outcome) -> list[str]:
    if prefix.cached_share >= single.cached_share - _MOST_LESS:
        return []
    return [f"{prefix.cached_share:.1%} cached, on one replica {single.cached_share:.1%}"]


def _twice(traffic: Traffic, prefix: Outcome, seed: int) -> list[str]:
    other = simulate(traffic, "round-robin", seed).cached_share
    if prefix.cached_share >= 2 * other:
        return []
    return [f"{prefix.cached_share:.1%} cached, round robin {other:.1%}"]
