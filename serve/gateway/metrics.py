"""Our own series: all of them follow from the records that the journal gets.

Counted in plain numbers and read by Prometheus' client at a scrape: its own counters and
histograms, each with a lock, would cost a request more than its limits do. And counted for many
requests at once, in loops that are not Python's: one costs a request a list's `append`.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from serve.journal import End
from serve.quota import NANOS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
CLIENT_LEFT = 499  # nginx's status for a client that closed the connection
_MOST_UNCOUNTED = 32  # requests; to count them takes 0.04 ms, 0.12 if no two are alike
_MOST_TENANTS = 200  # with series of their own; what comes after them is `other`
_OTHER = "other"
# Seconds. A first token takes from a cached prefix's tens of milliseconds to a queue's minutes.
_TIMES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_TOKEN_TIMES = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0)


class _Times:
    """A histogram."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts: Counter[int] = Counter()  # by place among the bounds
        self.sum = 0.0

    def observe(self, seconds: Sequence[float]) -> None:
        self.counts.update(map(bisect_left, repeat(self._bounds), seconds))
        self.sum = sum(seconds, self.sum)

    def buckets(self) -> list[tuple[str, float]]:
        total, rows = 0, []
        for place, bound in enumerate((*map(str, self._bounds), "+Inf")):
            total += self.counts[place]
            rows.append((bound, float(total)))
        return rows


class _Route:
    """What is counted for one (model, route)."""

    __slots__ = ("duration", "statuses")

    def __init__(self) -> None:
        self.duration = _Times(_TIMES)
        self.statuses: Counter[int] = Counter()

    def count(self, records: Sequence[End]) -> None:
        self.statuses.update(_column(records, "status"))
        self.duration.observe(_column(records, "duration_s"))


class _Model:
    """What is counted for one model."""

    __slots__ = ("lost", "left", "per_token", "queue", "running", "ttft", "waiting")

    def __init__(self) -> None:
        self.queue, self.ttft = _Times(_TIMES), _Times(_TIMES)
        self.per_token = _Times(_TOKEN_TIMES)
        self.running = self.waiting = self.left = self.lost = 0

    def count(self, records: Sequence[End]) -> None:
        self.running -= len(records)
        self.left += _column(records, "outcome").count("left")
        self.queue.observe(_column(records, "queue_s"))
        firsts = _column(records, "ttft_s")
        self.ttft.observe([first_s for first_s in firsts if first_s is not None])
        self.per_token.observe(
            [
                max(record.duration_s - first_s, 0.0) / (record.output_tokens - 1)
                for record, first_s in zip(records, firsts, strict=True)
                if first_s is not None and record.output_tokens > 1
            ]
        )


class _Share:
    """What one tenant took of one model."""

    __slots__ = ("amounts",)

    def __init__(self) -> None:
        self.amounts = [0] * (len(_KINDS) + 1)  # tokens of each kind, nanos

    def count(self, records: Sequence[End]) -> None:
        self.amounts = list(map(sum, zip(self.amounts, *map(_amounts, records), strict=True)))


_KINDS = ("input", "cached", "output", "reasoning")
_amounts = attrgetter(*(f"{kind}_tokens" for kind in _KINDS), "cost_nanos")


def _column(records: Sequence[End], field: str) -> list[Any]:
    return list(map(attrgetter(field), records))


class Metrics:
    """One per gateway process. Labels are names that the roster or the table of routes has, never
    what a client wrote."""

    def __init__(self) -> None:
        self._routes: defaultdict[tuple[str, str], _Route] = defaultdict(_Route)
        self._models: defaultdict[str, _Model] = defaultdict(_Model)
        self._shares: dict[tuple[str, str], _Share] = {}
        self._tenants: set[str] = set()
        self._refused: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self._begun: list[str] = []  # what is not counted yet: models
        self._ended: list[End] = []
        # (model): a request is on its way to an engine.
        self.begin: Callable[[str], None] = self._begun.append
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Collector(self._collect))

    def end(self, record: End) -> None:
        """It is over. Once for each `begin`."""
        ended = self._ended
        ended.append(record)
        if len(ended) >= _MOST_UNCOUNTED:
            self._count()

    def refused(self, route: str, status: int, code: str = "", model: str = "") -> None:
        """A request was refused by us. `code`: that of the answer."""
        self._routes[model, route].statuses[status] += 1
        self._refused[model, route, code] += 1

    def upstream_lost(self, model: str) -> None:
        """An engine could not be reached, or went away before the end of its answer."""
        self._models[model].lost += 1

    def waiting(self, model: str, change: int) -> None:
        """So many more (or fewer) requests wait for their turn, or for the model."""
        self._models[model].waiting += change

    def text(self) -> str:
        """Our series in Prometheus' text format."""
        self._count()
        return generate_latest(self._registry).decode()

    def _count(self) -> None:
        for model, begun in Counter(self._begun).items():
            self._models[model].running += begun
        self._begun.clear()
        by_route: defaultdict[tuple[str, str], list[End]] = defaultdict(list)
        by_tenant: defaultdict[tuple[str, str], list[End]] = defaultdict(list)
        for record in self._ended:
            model = record.model
            by_route[model, record.route].append(record)
            by_tenant[model, record.tenant].append(record)
        self._ended.clear()
        for (model, route), records in by_route.items():
            self._routes[model, route].count(records)
            self._models[model].count(records)
        for (model, tenant), records in by_tenant.items():
            self._share(model, tenant).count(records)

    def _share(self, model: str, tenant: str) -> _Share:
        if tenant not in self._tenants:
            if len(self._tenants) < _MOST_TENANTS:
                self._tenants.add(tenant)
            else:
                tenant = _OTHER
        return self._shares.setdefault((model, tenant), _Share())

    def _collect(self) -> Iterator[Metric]:
        yield from self._per_route()
        yield from self._per_model()
        yield from self._per_tenant()

    def _per_route(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "inhouse_requests", "Requests answered.", labels=("model", "route", "status")
        )
        duration = HistogramMetricFamily(
            "inhouse_request_duration_seconds", "From a request's head to the answer's end.",
            labels=("model", "route"),
        )  # fmt: skip
        refused = CounterMetricFamily(
            "inhouse_refusals", "Requests that no engine heard of.",
            labels=("model", "route", "code"),
        )  # fmt: skip
        for labels, route in self._routes.items():
            for status, count in route.statuses.items():
                requests.add_metric((*labels, str(status)), count)
            if route.duration.counts:
                duration.add_metric(labels, route.duration.buckets(), route.duration.sum)
        for key, count in self._refused.items():
            refused.add_metric(key, count)
        yield from (requests, duration, refused)

    def _per_model(self) -> Iterator[Metric]:
        for name, text, read in _HISTOGRAMS:
            family = HistogramMetricFamily(name, text, labels=("model",))
            for model, counted in self._models.items():
                times = read(counted)
                family.add_metric((model,), times.buckets(), times.sum)
            yield family
        for name, text, kind, count in _COUNTS:
            counts = kind(name, text, labels=("model",))
            for model, counted in self._models.items():
                counts.add_metric((model,), count(counted))
            yield counts

    def _per_tenant(self) -> Iterator[Metric]:
        tokens = CounterMetricFamily(
            "inhouse_tokens",
            "Tokens by kind; cached ones are among the input, reasoning among the output.",
            labels=("model", "tenant", "kind"),
        )
        cost = CounterMetricFamily(
            "inhouse_cost", "Cost in the prices' currency.", labels=("model", "tenant")
        )
        for labels, share in self._shares.items():
            *amounts, nanos = share.amounts
            for kind, amount in zip(_KINDS, amounts, strict=True):
                tokens.add_metric((*labels, kind), amount)
            cost.add_metric(labels, nanos / NANOS)
        yield from (tokens, cost)


class _Collector(Collector):
    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        return self._read()


_HISTOGRAMS: tuple[tuple[str, str, Callable[[_Model], _Times]], ...] = (
    (
        "inhouse_time_to_first_token_seconds",
        "From a request's head to the first bytes of its answer.",
        lambda model: model.ttft,
    ),
    (
        "inhouse_time_per_output_token_seconds",
        "Each further token, mean over an answer.",
        lambda model: model.per_token,
    ),
    (
        "inhouse_queue_seconds",
        "Waiting for a turn, or for the model.",
        lambda model: model.queue,
    ),
)
_COUNTS: tuple[tuple[str, str, type, Callable[[_Model], int]], ...] = (
    (
        "inhouse_requests_running", "Requests that an engine works on.", GaugeMetricFamily,
        lambda model: model.running,
    ),
    (
        "inhouse_requests_waiting", "Requests that wait for their turn, or for the model.",
        GaugeMetricFamily, lambda model: model.waiting,
    ),
    (
        "inhouse_client_disconnects", "Clients that left before their answer was complete.",
        CounterMetricFamily, lambda model: model.left,
    ),
    (
        "inhouse_upstream_errors", "Engines that went away before or in an answer.",
        CounterMetricFamily, lambda model: model.lost,
    ),
)  # fmt: skip
