"""OpenTelemetry traces of requests, sent to a collector over OTLP; imported only where one is set.

A span costs 20 us and more, so it is made after the answer, and of a share of the requests: those
whose caller traces them, and some of those that nobody decided on.
"""

from __future__ import annotations

import random
import time
from threading import Thread

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    SpanKind,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

import softxent
from softxent_service.telemetry.record import STAGES, Record

EXPORT_SECONDS = 5
"""How long a collector has for one batch of spans."""

CLOSE_SECONDS = 2
"""How long a stop waits for spans to be sent."""

_context = TraceContextTextMapPropagator()
_context_headers = {name.encode() for name in _context.fields}


class Traces:
    """Makes spans of requests that have ended: one each, and one below it for each stage."""

    def __init__(self, endpoint: str, share: float) -> None:
        self._share = share
        resource = Resource.create(
            {"service.name": "softxent", "service.version": softxent.__version__}
        )
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS)
        self._provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("softxent_service")

    def record(self, record: Record) -> None:
        """Trace a request, if it is one that is traced; its record then knows the trace's id."""
        parent = _parent(record)
        caller = get_current_span(parent).get_span_context()
        if caller.trace_flags.sampled if caller.is_valid else random.random() < self._share:
            self._trace(record, parent)

    def _trace(self, record: Record, parent: Context) -> None:
        end = time.time_ns()
        start = end - _nanoseconds(record.whole)
        method = record.scope.get("method", "")
        span = self._tracer.start_span(
            f"{method} {record.route}",
            parent,
            kind=SpanKind.SERVER,
            attributes=_attributes(record),
            start_time=start,
        )
        if record.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        record.trace_id = f"{span.get_span_context().trace_id:032x}"
        within = set_span_in_context(span, Context())
        for stage, seconds in zip(STAGES, record.seconds, strict=True):
            if seconds > 0:
                part = self._tracer.start_span(stage, within, start_time=start)
                start += _nanoseconds(seconds)
                part.end(start)
        span.end(end)

    def close(self) -> None:
        """Send what waits, as far as the collector takes it in time."""
        # The provider's own time limit is half a minute, where nobody answers.
        sending = Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(timeout=CLOSE_SECONDS)


def _parent(record: Record) -> Context:
    """Return what the headers `traceparent` and `tracestate` say; an empty context without."""
    carried = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in record.scope.get("headers", ())
        if name in _context_headers
    }
    return _context.extract(carried, Context())


def _attributes(record: Record) -> dict[str, AttributeValue]:
    """Return what a span says: names of OpenTelemetry's conventions, and a few of ours."""
    attributes: dict[str, AttributeValue] = {
        "http.request.method": record.scope.get("method", ""),
        "http.route": record.route,
        "http.response.status_code": record.status,
        "http.request.body.size": record.received,
        "http.response.body.size": record.sent,
        "softxent.request_id": record.request_id,
    }
    if record.dtype is not None:
        attributes |= {"softxent.rows": record.rows, "softxent.dtype": record.dtype}
    if record.problem is not None:
        attributes["error.type"] = record.problem
    return attributes


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
