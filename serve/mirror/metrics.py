"""What the mirror counts about itself, in Prometheus' text format."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_MOST_REPOS = 500


class Metrics:
    """Every series of a mirror. No label ever holds what a client wrote."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "inhouse_mirror_requests", "Requests answered.", ("route", "status"), registry=registry
        )
        self._sent = Counter(
            "inhouse_mirror_sent_bytes", "Bytes of files sent.", ("repo",), registry=registry
        )
        self.transfers = Gauge(
            "inhouse_mirror_transfers_running", "Files that are being sent.", registry=registry
        )
        self.connections = Gauge(
            "inhouse_mirror_connections", "Connections that are open.", registry=registry
        )
        self.damaged = Counter(
            "inhouse_mirror_damaged", "Files refused because they are not what was verified.",
            registry=registry,
        )  # fmt: skip
        self._repos: set[str] = set()

    def count(self, route: str, status: int) -> None:
        """One request, answered."""
        self._requests.labels(route, str(status)).inc()

    def sent(self, repo: str, count: int) -> None:
        """Bytes of a repository that we hold; beyond the first 500 they share one label."""
        if repo not in self._repos:
            if len(self._repos) >= _MOST_REPOS:
                repo = "other"
            else:
                self._repos.add(repo)
        self._sent.labels(repo).inc(count)

    def text(self) -> bytes:
        """All series."""
        return generate_latest(self._registry)
