"""What we count, and what the dashboard shows of it."""

import json
import os
import re
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from serve.gateway.metrics import Metrics
from serve.gateway.siblings import leave, together
from serve.journal import End
from tests.fakes.vllm_words import metrics as engine_page

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "inhouse.json"


def ended(**more: object) -> End:
    fields: dict[str, object] = {
        "id": "1", "at": 1.0, "key": "k", "tenant": "t", "model": "m", "route": "chat",
        "replica": "m-0", "status": 200, "outcome": "ok", "input_tokens": 100, "cached_tokens": 60,
        "output_tokens": 11, "reasoning_tokens": 3, "queue_s": 0.2, "ttft_s": 0.5,
        "duration_s": 1.5, "cost_nanos": 2_500_000_000,
    }  # fmt: skip
    return End(**(fields | more))  # type: ignore[arg-type]


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels[key] for key in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_all_series_follow_from_the_end_of_a_request() -> None:
    counted = Metrics()
    counted.begin("m")
    counted.begin("m")
    counted.end(ended())
    counted.waiting("m", 2)
    counted.waiting("m", -1)
    counted.refused("chat", 429, "rate_limit_exceeded", "m")
    counted.upstream_lost("m")
    read = samples(counted.text())
    assert read["inhouse_requests_total", ("m", "chat", "200")] == 1
    assert read["inhouse_requests_total", ("m", "chat", "429")] == 1
    assert read["inhouse_refusals_total", ("rate_limit_exceeded", "m", "chat")] == 1
    assert read["inhouse_requests_running", ("m",)] == 1
    assert read["inhouse_requests_waiting", ("m",)] == 1
    assert read["inhouse_upstream_errors_total", ("m",)] == 1
    assert read["inhouse_request_duration_seconds_sum", ("m", "chat")] == 1.5
    assert read["inhouse_queue_seconds_sum", ("m",)] == 0.2
    assert read["inhouse_time_to_first_token_seconds_bucket", ("0.5", "m")] == 1
    assert read["inhouse_time_to_first_token_seconds_bucket", ("0.25", "m")] == 0
    # One second for the ten tokens after the first.
    assert read["inhouse_time_per_output_token_seconds_sum", ("m",)] == pytest.approx(0.1)
    kinds = {"input": 100, "cached": 60, "output": 11, "reasoning": 3}
    for kind, count in kinds.items():
        assert read["inhouse_tokens_total", (kind, "m", "t")] == count
    assert read["inhouse_cost_total", ("m", "t")] == 2.5


def test_a_client_that_left_is_counted_and_an_answer_without_tokens_has_no_times() -> None:
    counted = Metrics()
    counted.begin("m")
    counted.end(ended(status=499, outcome="left", ttft_s=None, output_tokens=0))
    read = samples(counted.text())
    assert read["inhouse_client_disconnects_total", ("m",)] == 1
    assert read["inhouse_time_to_first_token_seconds_count", ("m",)] == 0
    assert read["inhouse_requests_running", ("m",)] == 0


QUARTERS = st.integers(0, 2000).map(lambda number: number / 4)  # whose sums are exact
ENDED = st.builds(
    ended,
    tenant=st.sampled_from(("t", "u", "other")), model=st.sampled_from(("m", "n")),
    route=st.sampled_from(("chat", "embeddings")), status=st.sampled_from((200, 499, 502)),
    outcome=st.sampled_from(("ok", "left", "gone")), input_tokens=st.integers(0, 2**70),
    output_tokens=st.integers(0, 3), queue_s=QUARTERS, ttft_s=st.none() | QUARTERS,
    duration_s=QUARTERS, cost_nanos=st.integers(0, 10**20),
)  # fmt: skip


@settings(max_examples=40, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.lists(ENDED, max_size=10), st.integers(0, 20), st.integers(0, 200))
def test_many_at_once_are_counted_as_one_by_one(few: list[End], times: int, scrape: int) -> None:
    records = few * times
    counted = Metrics()
    for number, record in enumerate(records):
        counted.begin(record.model)
        counted.end(record)
        if number == scrape:
            counted.text()
    read = samples(counted.text())
    found = {key: value for key, value in read.items() if key[0].startswith("inhouse_") and value}
    edges = {
        name: {labels[0] for series, labels in read if series == f"{name}_bucket"} for name in TIMES
    }
    assert found == one_by_one(records, edges)


def one_by_one(
    records: list[End], edges: dict[str, set[str]]
) -> dict[tuple[str, tuple[str, ...]], float]:
    """The samples that are not 0."""
    found: defaultdict[tuple[str, tuple[str, ...]], float] = defaultdict(int)
    for record in records:
        model, labels = record.model, (record.model, record.route)
        found["inhouse_requests_total", (*labels, str(record.status))] += 1
        found["inhouse_client_disconnects_total", (model,)] += record.outcome == "left"
        for kind in ("input", "cached", "output", "reasoning"):
            tokens = getattr(record, f"{kind}_tokens")
            found["inhouse_tokens_total", (kind, model, record.tenant)] += tokens
        found["inhouse_cost_total", (model, record.tenant)] += record.cost_nanos
        for name, (seconds, more) in seen(record).items():
            found[f"{name}_sum", (model, *more)] += seconds
            found[f"{name}_count", (model, *more)] += 1
            for edge in edges[name]:
                found[f"{name}_bucket", (edge, model, *more)] += seconds <= float(edge)
    for key in found:
        if key[0] == "inhouse_cost_total":
            found[key] /= 10**9
    return {key: float(value) for key, value in found.items() if value}


TIMES = (
    "inhouse_request_duration_seconds", "inhouse_queue_seconds",
    "inhouse_time_to_first_token_seconds", "inhouse_time_per_output_token_seconds",
)  # fmt: skip


def seen(record: End) -> dict[str, tuple[float, tuple[str, ...]]]:
    """Series → what is seen there, and its further labels."""
    duration, queue, first, token = TIMES
    all_times: dict[str, tuple[float, tuple[str, ...]]] = {
        duration: (record.duration_s, (record.route,)), queue: (record.queue_s, ())
    }  # fmt: skip
    if record.ttft_s is not None:
        all_times[first] = record.ttft_s, ()
        if record.output_tokens > 1:
            rest_s = max(0.0, record.duration_s - record.ttft_s)
            all_times[token] = rest_s / (record.output_tokens - 1), ()
    return all_times


def test_tenants_without_number_do_not_become_series_without_number() -> None:
    counted = Metrics()
    for number in range(1000):
        counted.begin("m")
        counted.end(ended(tenant=f"t{number}"))
    tenants = {
        labels[2] for name, labels in samples(counted.text()) if name.endswith("tokens_total")
    }
    assert len(tenants) == 201
    assert samples(counted.text())["inhouse_tokens_total", ("input", "m", "other")] == 80_000


def test_a_scrape_of_one_gateway_shows_all(tmp_path: Path) -> None:
    pages = []
    for slot in range(3):
        counted = Metrics()
        counted.begin("m")
        counted.end(ended(input_tokens=slot + 1))
        pages.append(counted.text())
        leave(tmp_path, slot, pages[-1])
    gone = tmp_path / "metrics-2.prom"
    os.utime(gone, (0, 0))  # its gateway is no more
    read = samples(together(tmp_path, 0, pages[0]))
    counts = {
        labels: value for (name, labels), value in read.items() if name == "inhouse_tokens_total"
    }
    assert counts["0", "input", "m", "t"] == 1
    assert counts["1", "input", "m", "t"] == 2
    assert not any(labels[0] == "2" for labels in counts)


def dashboard_names() -> set[str]:
    told = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in told["panels"] for target in panel["targets"]]
    assert len(expressions) > 15
    return {
        name
        for expression in expressions
        for name in re.findall(r"\b(?:inhouse_|vllm:|process_)[a-z_]+", expression)
    }


def test_the_dashboard_shows_what_is_there() -> None:
    counted = Metrics()
    counted.begin("m")
    counted.end(ended())
    counted.refused("chat", 429, "x")
    rows = tuple(
        (name, "gauge", 1)
        for name in ("vllm:num_requests_running", "vllm:num_requests_waiting",
                     "vllm:kv_cache_usage_perc")
    )  # fmt: skip
    page = counted.text() + engine_page("m", rows).decode()
    there = {name for name, _ in samples(page)}
    assert dashboard_names() <= there
    ours = {name for name in there if name.startswith("inhouse_") and not name.endswith("_created")}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours}
    missing = shown - {re.sub(r"_(bucket|sum|count)$", "", name) for name in dashboard_names()}
    assert not missing, "a series that nobody looks at"
