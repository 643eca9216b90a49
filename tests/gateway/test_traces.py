"""Traces reach a collector, and hold no content."""

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from serve.gateway.traces import Traces
from serve.journal import End

RECORD = End(
    "id-1", 1_700_000_000.0, "k1", "acme", "qwen", "chat", "qwen-0", 200, "ok",
    input_tokens=100, cached_tokens=64, output_tokens=20, ttft_s=0.25, duration_s=2.0,
)  # fmt: skip
PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = PARENT[:-1] + b"0"


class Collector(HTTPServer):
    """What an OpenTelemetry collector is for us: it takes spans."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.spans: list[Span] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Collector)
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        told = ExportTraceServiceRequest.FromString(body)
        for resource in told.resource_spans:
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.server.paths.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_request_is_one_span_below_its_client_s(collector: Collector) -> None:
    traces = Traces(collector.url, sample=0.0)  # the parent's decision counts
    trace = traces.begin("chat", RECORD.at, PARENT)
    assert trace is not None
    trace.end(RECORD)
    traces.close()
    (span,) = collector.spans
    assert collector.paths == ["/v1/traces"]
    assert span.name == "chat"
    assert span.trace_id.hex().encode() == PARENT.split(b"-")[1]
    assert span.parent_span_id.hex().encode() == PARENT.split(b"-")[2]
    assert trace.header == b"00-%b-%b-01" % (PARENT.split(b"-")[1], span.span_id.hex().encode())
    assert span.start_time_unix_nano == 1_700_000_000 * 10**9
    assert span.end_time_unix_nano - span.start_time_unix_nano == 2 * 10**9
    told = {each.key: each.value for each in span.attributes}
    assert told["gen_ai.usage.input_tokens"].int_value == 100
    assert told["gen_ai.server.time_to_first_token"].double_value == 0.25
    assert told["inhouse.tenant"].string_value == "acme"


@pytest.mark.parametrize(("parent", "sample"), [(UNSAMPLED, 1.0), (None, 0.0)])
def test_what_is_not_sampled_costs_and_sends_nothing(
    collector: Collector, parent: bytes | None, sample: float
) -> None:
    traces = Traces(collector.url, sample)
    assert traces.begin("chat", RECORD.at, parent) is None
    traces.close()
    assert not collector.spans


@pytest.mark.parametrize("parent", [b"", b"nonsense", b"\xff\xfe", b"00-" + b"0" * 32 + b"-0-01"])
def test_a_bad_parent_is_no_parent(collector: Collector, parent: bytes) -> None:
    traces = Traces(f"{collector.url}/v1/traces", sample=1.0)
    trace = traces.begin("chat", RECORD.at, parent)
    assert trace is not None
    trace.end(RECORD)
    traces.close()
    assert collector.spans[0].parent_span_id == b""
    assert collector.paths == ["/v1/traces"]
