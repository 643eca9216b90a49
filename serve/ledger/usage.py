"""What was used, by whom and of what: sums over the requests that the ledger knows."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, Connection, case, delete, func, literal_column, select

from serve.ledger.database import Database
from serve.ledger.schema import keys, usage

Dimension = Literal[
    "key", "tenant", "model", "route", "replica", "status", "outcome", "day", "month"
]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)

_FAULTS = ("error", "gone", "crashed")  # `journal.Outcome`s that are nobody's wish
# Times of UTC, as texts: the only words that the databases do not have in common.
_PERIODS = {
    ("sqlite", "day"): "strftime('%Y-%m-%d', at, 'unixepoch')",
    ("sqlite", "month"): "strftime('%Y-%m', at, 'unixepoch')",
    ("postgresql", "day"): "to_char(to_timestamp(at) AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    ("postgresql", "month"): "to_char(to_timestamp(at) AT TIME ZONE 'UTC', 'YYYY-MM')",
}


@dataclass(frozen=True, slots=True)
class Total:
    """What the requests have in common by which they were grouped, and their sums.

    `cached_tokens` are among `input_tokens`, `reasoning_tokens` among `output_tokens`. `errors`:
    requests that failed; `estimated`: requests whose tokens the engine did not tell. `ttft_s`: the
    mean, None where none had a first token. `energy_j`: None where it was never measured.
    """

    group: tuple[str, ...]
    requests: int
    errors: int
    estimated: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_nanos: int
    ttft_s: float | None
    energy_j: float | None


@dataclass(frozen=True, slots=True)
class Used:
    """Of a running day and month: tokens (input and output) and nanos."""

    day: tuple[int, int] = (0, 0)
    month: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Spent:
    """Who has used how much; nobody is in it who has used nothing."""

    keys: Mapping[str, Used] = field(default_factory=dict)
    tenants: Mapping[str, Used] = field(default_factory=dict)
    models: Mapping[str, Used] = field(default_factory=dict)


class Usage:
    """Reads what an `Importer` has written: requests of the last moments may be missing."""

    dimensions = DIMENSIONS

    def __init__(self, database: Database) -> None:
        self._database = database

    def totals(
        self, by: Sequence[Dimension] = (), since: float | None = None, until: float | None = None
    ) -> tuple[Total, ...]:
        """One for each group of requests that began in the time (unix seconds), sorted by group.

        `by` empty: one for all of them, also if there was none. Days and months are those of UTC.
        """
        with self._database.read() as connection:
            columns = [_column(connection, dimension) for dimension in by]
            wanted = select(*columns, *_SUMS).where(*_between(since, until))
            rows = connection.execute(wanted.group_by(*columns).order_by(*columns)).all()
        return tuple(_total(row, len(by)) for row in rows)

    def spent(self, now: float) -> Spent:
        """In the day and the month (UTC) that `now` (unix seconds) is in."""
        day, month = _begins(now)
        parties = usage.c.key, usage.c.tenant, usage.c.model
        sums = (
            func.sum(_of_day(day, _TOKENS)),
            func.sum(_of_day(day, usage.c.cost_nanos)),
            func.sum(_TOKENS),
            func.sum(usage.c.cost_nanos),
        )
        wanted = select(*parties, *sums).where(usage.c.at >= month).group_by(*parties)
        with self._database.read() as connection:
            rows = connection.execute(wanted).all()
        return Spent(*(_used(rows, place) for place in range(len(parties))))

    def key_names(self) -> dict[str, str]:
        """What the keys are called by their owners, for those that have a name."""
        with self._database.read() as connection:
            named = select(keys.c.id, keys.c.name).where(keys.c.name != "")
            return {row.id: row.name for row in connection.execute(named)}

    def forget(self, before: float) -> int:
        """Remove the requests that began before that time (unix seconds); how many they were."""
        with self._database.begin() as connection:
            return connection.execute(delete(usage).where(usage.c.at < before)).rowcount


_TOKENS = usage.c.input_tokens + usage.c.output_tokens
_SUMS = (
    func.count(),
    func.sum(case((usage.c.outcome.in_(_FAULTS), 1), else_=0)),
    func.sum(case((usage.c.is_estimated, 1), else_=0)),
    func.sum(usage.c.input_tokens),
    func.sum(usage.c.cached_tokens),
    func.sum(usage.c.output_tokens),
    func.sum(usage.c.reasoning_tokens),
    func.sum(usage.c.cost_nanos),
    func.avg(usage.c.ttft_s),
    func.sum(usage.c.energy_j),
)


def _column(connection: Connection, dimension: Dimension) -> ColumnElement[Any]:
    period = _PERIODS.get((connection.dialect.name, dimension))
    return literal_column(period) if period else usage.c[dimension]


def _between(since: float | None, until: float | None) -> list[ColumnElement[bool]]:
    bounds = []
    if since is not None:
        bounds.append(usage.c.at >= since)
    if until is not None:
        bounds.append(usage.c.at < until)
    return bounds


def _total(row: Sequence[Any], n_group: int) -> Total:
    group, counts, means = row[:n_group], row[n_group:-2], row[-2:]
    sums: list[Any] = [int(count or 0) for count in counts]  # PostgreSQL gives decimals
    return Total(tuple(map(str, group)), *sums, *means)


def _begins(now: float) -> tuple[float, float]:
    """When the day and the month began."""
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day.timestamp(), day.replace(day=1).timestamp()


def _of_day(begin: float, value: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((usage.c.at >= begin, value), else_=0)


def _used(rows: Iterable[Sequence[Any]], place: int) -> dict[str, Used]:
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0] * 4)
    for row in rows:
        known = sums[row[place]]
        for number, value in enumerate(row[3:]):
            known[number] += int(value)
    return {
        name: Used((day_tokens, day_nanos), (tokens, nanos))
        for name, (day_tokens, day_nanos, tokens, nanos) in sums.items()
        if name
    }
