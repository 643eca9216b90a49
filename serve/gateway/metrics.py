"""Our own series, and the engines' text merged into one page."""

from collections.abc import Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
CLIENT_LEFT = 499  # nginx's status for a client that closed the connection
_BUCKETS_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Series:
    """The series of one (model, route), bound once: labels are looked up only at first use."""

    __slots__ = ("_labels", "_requests", "_statuses", "duration", "first_byte", "running")

    def __init__(self, metrics: "Metrics", model: str, route: str) -> None:
        self._labels = (model, route)
        self._requests = metrics.requests
        self._statuses: dict[int, Counter] = {}
        self.duration = metrics.duration.labels(model, route)
        self.first_byte = metrics.first_byte.labels(model, route)
        self.running = metrics.running.labels(model)

    def count(self, status: int) -> None:
        counter = self._statuses.get(status)
        if counter is None:
            counter = self._statuses[status] = self._requests.labels(*self._labels, str(status))
        counter.inc()


class Metrics:
    """Every series that a gateway counts itself."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        served = ("model", "route")
        self.requests = Counter(
            "inhouse_requests", "Requests answered.", (*served, "status"), registry=registry
        )
        self.duration = Histogram(
            "inhouse_request_duration_seconds", "From a request's head to the answer's end.",
            served, registry=registry, buckets=_BUCKETS_S,
        )  # fmt: skip
        self.first_byte = Histogram(
            "inhouse_time_to_first_byte_seconds", "From a request's head to the answer's head.",
            served, registry=registry, buckets=_BUCKETS_S,
        )  # fmt: skip
        self.running = Gauge(
            "inhouse_requests_running", "Requests that an engine works on.", ("model",),
            registry=registry,
        )  # fmt: skip
        self.disconnects = Counter(
            "inhouse_client_disconnects", "Clients that left before their answer was complete.",
            ("model",), registry=registry,
        )  # fmt: skip
        self.upstream_errors = Counter(
            "inhouse_upstream_errors", "Engines that went away before or in an answer.",
            ("model",), registry=registry,
        )  # fmt: skip
        self._series: dict[tuple[str, str], Series] = {}

    def series(self, model: str, route: str) -> Series:
        """`model`: a served one's canonical name, or empty; never what a client wrote."""
        series = self._series.get((model, route))
        if series is None:
            series = self._series[model, route] = Series(self, model, route)
        return series

    def text(self) -> str:
        """Our series in Prometheus' text format."""
        return generate_latest(self._registry).decode()


def merge(texts: Mapping[str, str]) -> str:
    """One page out of the engines' (`texts`: replica id → Prometheus text).

    Only `vllm:` series, each sample with a label `replica`, each family described once and its
    samples together, as the format demands.
    """
    families: dict[str, list[str]] = {}
    for replica, text in texts.items():
        label = 'replica="' + replica.replace("\\", r"\\").replace('"', r"\"") + '"'
        family = ""
        for line in text.splitlines():
            if line.startswith(("# HELP vllm:", "# TYPE vllm:")):
                family = line.split(" ", 3)[2]
                lines = families.setdefault(family, [])
                if line not in lines[:2]:
                    _describe(lines, line)
            elif line.startswith("vllm:"):
                name = line.partition(" ")[0].partition("{")[0]
                owner = family if family and name.startswith(family) else name
                families.setdefault(owner, []).append(_labelled(line, name, label))
    return "".join(f"{line}\n" for lines in families.values() for line in lines)


def _describe(lines: list[str], line: str) -> None:
    """Put a HELP or TYPE line before the samples, unless another replica has said it already."""
    kind = line[:6]
    described = [known for known in lines if known.startswith("# ")]
    if not any(known.startswith(kind) for known in described):
        lines.insert(len(described), line)


def _labelled(line: str, name: str, label: str) -> str:
    rest = line[len(name) :]
    if not rest.startswith("{"):
        return f"{name}{{{label}}}{rest}"
    separator = "" if rest.startswith("{}") else ","
    return f"{name}{{{label}{separator}{rest[1:]}"
