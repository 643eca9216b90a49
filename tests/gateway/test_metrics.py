import httpx
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from serve.gateway.merging import merge
from tests.fakes.vllm_words import metrics
from tests.gateway.stack import FakeEngine, Stack

ONE = """# HELP python_info Python.
# TYPE python_info gauge
python_info 1.0
# HELP vllm:ttft_seconds Time to first token, "odd".
# TYPE vllm:ttft_seconds histogram
vllm:ttft_seconds_bucket{engine="0",le="0.1"} 1.0
vllm:ttft_seconds_bucket{engine="0",le="+Inf"} 2.0
vllm:ttft_seconds_count{engine="0"} 2.0
# HELP vllm:up About.
# TYPE vllm:up gauge
vllm:up 1.0
"""


def test_families_are_described_once_and_keep_their_samples_together() -> None:
    assert merge({"a": ONE, 'b"': ONE.replace("1.0", "3.0")}) == (
        '# HELP vllm:ttft_seconds Time to first token, "odd".\n'
        "# TYPE vllm:ttft_seconds histogram\n"
        'vllm:ttft_seconds_bucket{replica="a",engine="0",le="0.1"} 1.0\n'
        'vllm:ttft_seconds_bucket{replica="a",engine="0",le="+Inf"} 2.0\n'
        'vllm:ttft_seconds_count{replica="a",engine="0"} 2.0\n'
        'vllm:ttft_seconds_bucket{replica="b\\"",engine="0",le="0.1"} 3.0\n'
        'vllm:ttft_seconds_bucket{replica="b\\"",engine="0",le="+Inf"} 2.0\n'
        'vllm:ttft_seconds_count{replica="b\\"",engine="0"} 2.0\n'
        "# HELP vllm:up About.\n"
        "# TYPE vllm:up gauge\n"
        'vllm:up{replica="a"} 1.0\n'
        'vllm:up{replica="b\\""} 3.0\n'
    )


def test_nothing_merges_to_nothing() -> None:
    assert merge({}) == "" and merge({"a": "", "b": "python_info 1.0\n"}) == ""


@given(
    st.dictionaries(
        st.text(st.characters(blacklist_categories=["C", "Z"]), min_size=1),
        st.lists(st.tuples(st.sampled_from(["vllm:a", "vllm:ab"]), st.integers(0, 9)), max_size=3),
        max_size=3,
    )
)
def test_the_page_can_be_read(replicas: dict[str, list[tuple[str, int]]]) -> None:
    texts = {
        name: metrics("m", tuple((series, "gauge", value) for series, value in rows)).decode()
        for name, rows in replicas.items()
    }
    families = list(text_string_to_metric_families(merge(texts)))
    assert len({family.name for family in families}) == len(families)
    samples = [sample for family in families for sample in family.samples]
    # The fake tells its cache's size on every page.
    assert len(samples) == sum(1 + len(rows) for rows in replicas.values())
    assert {sample.labels["replica"] for sample in samples} <= set(replicas)


def values(client: httpx.Client) -> dict[tuple[str, tuple[str, ...]], float]:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_the_page_counts_ours_and_shows_the_engines(stack: Stack, engine: FakeEngine) -> None:
    chat = "/v1/chat/completions"
    for body in ({"model": engine.name}, {"model": f"org/{engine.name}"}, {"model": "no-such"}):
        stack.post(body)
    stack.client.post(chat, content=b"no JSON with a canary")
    stack.client.get("/v1/canary")
    seen = values(stack.client)
    assert seen["inhouse_requests_total", (engine.name, chat, "200")] == 2
    assert seen["inhouse_requests_total", ("", chat, "404")] == 1
    assert seen["inhouse_requests_total", ("", chat, "400")] == 1
    assert seen["inhouse_request_duration_seconds_count", (engine.name, chat)] == 2
    assert seen["inhouse_time_to_first_token_seconds_count", (engine.name,)] == 2
    assert seen["inhouse_requests_running", (engine.name,)] == 0
    assert seen["process_resident_memory_bytes", ()] < 100 * 2**20
    assert seen["vllm:request_success_total", (f"{engine.name}-0", "0", engine.name)] == 2
    assert not any("python_info" in name for name, _ in seen)
    assert not any(
        "canary" in label or "no-such" in label for _, labels in seen for label in labels
    )


def test_an_engine_that_does_not_answer_does_not_hide_the_others(
    stack: Stack, engine: FakeEngine
) -> None:
    with stack.engine() as dead:
        dead.process.kill()
        dead.process.wait()
        shown = {labels for name, labels in values(stack.client) if name.startswith("vllm:")}
    assert {labels[0] for labels in shown} == {f"{engine.name}-0"}


def test_a_lost_engine_is_counted_once(stack: Stack, engine: FakeEngine) -> None:
    engine.process.kill()
    engine.process.wait()
    stack.post({"model": engine.name})
    seen = values(stack.client)
    assert seen["inhouse_upstream_errors_total", (engine.name,)] == 1
    counted = {
        labels: value for (name, labels), value in seen.items() if name == "inhouse_requests_total"
    }
    assert counted[engine.name, "/v1/chat/completions", "502"] == 1
    assert ("", "/v1/chat/completions", "502") not in counted
