"""One OpenTelemetry span per request, by OTLP over HTTP: times, counts and names, never content.

Names of attributes are those of OpenTelemetry's conventions for generative AI where there are some.
"""

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serve.journal import End

_NANOSECONDS = 10**9
_GOOD = ("ok", "left")  # a client that leaves is no fault of ours


class Trace:
    """The span of one request."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def header(self) -> bytes:
        """The `traceparent` that an upstream is told, so that its spans lie below ours."""
        context = self._span.get_span_context()
        flags = int(context.trace_flags)
        return b"00-%032x-%016x-%02x" % (context.trace_id, context.span_id, flags)

    def end(self, record: End) -> None:
        """The request is over."""
        self._span.set_attributes(
            {
                "gen_ai.operation.name": record.route,
                "gen_ai.request.model": record.model,
                "gen_ai.usage.input_tokens": record.input_tokens,
                "gen_ai.usage.output_tokens": record.output_tokens,
                "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
                "http.response.status_code": record.status,
                "inhouse.outcome": record.outcome,
                "inhouse.tenant": record.tenant,
                "inhouse.replica": record.replica,
                "inhouse.request": record.id,
                "inhouse.queue_s": record.queue_s,
            }
        )
        if record.ttft_s is not None:
            self._span.set_attribute("gen_ai.server.time_to_first_token", record.ttft_s)
        if record.outcome not in _GOOD:
            self._span.set_status(Status(StatusCode.ERROR, record.outcome))
        self._span.end(int((record.at + record.duration_s) * _NANOSECONDS))


class Traces:
    """One per gateway process. Spans leave in batches, from a thread of the SDK's."""

    def __init__(self, endpoint: str, sample: float) -> None:
        self._provider = TracerProvider(
            resource=Resource({"service.name": "inhouse"}),
            sampler=ParentBased(TraceIdRatioBased(sample)),
        )
        url = endpoint.rstrip("/")
        if not url.endswith("/v1/traces"):
            url += "/v1/traces"
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(url)))
        self._tracer = self._provider.get_tracer("inhouse")
        self._parents = TraceContextTextMapPropagator()

    def begin(self, route: str, at: float, traceparent: bytes | None) -> Trace | None:
        """The trace of a request that began `at` (unix seconds); None: it is not among the sample.

        `traceparent`: the client's, whose own decision to sample counts.
        """
        carrier = {"traceparent": traceparent.decode("latin-1")} if traceparent else {}
        span = self._tracer.start_span(
            route,
            self._parents.extract(carrier),
            kind=SpanKind.SERVER,
            start_time=int(at * _NANOSECONDS),
        )
        return Trace(span) if isinstance(span, Span) and span.is_recording() else None

    def close(self) -> None:
        """Send what there is."""
        self._provider.shutdown()
