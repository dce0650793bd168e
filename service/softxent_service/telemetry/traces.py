"""OpenTelemetry traces of requests, sent to a collector over OTLP; imported only where one is set.

Of a share of the requests: those whose caller traces them, and some of those that nobody decided
on. A request has ended when it is traced, so its spans are made ended: a tracer's own, begun and
ended, took 15 us each, and what sends them takes 50 us more for each.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from threading import Thread

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

import softxent
from softxent_service.telemetry.record import STAGES, Record

EXPORT_SECONDS = 5
"""How long a collector has for one batch of spans."""

CLOSE_SECONDS = 2
"""How long a stop waits for spans to be sent."""

SHORTEST_STAGE = 1e-4
"""Seconds; a shorter stage has no span of its own, only its time among the request's attributes."""

_SCOPE = InstrumentationScope("softxent_service", softxent.__version__)
_OK, _FAILED = Status(), Status(StatusCode.ERROR)

_context = TraceContextTextMapPropagator()
_context_headers = {name.encode() for name in _context.fields}


class Traces:
    """Spans of requests that have ended: one each, and one below it for each long stage."""

    def __init__(self, endpoint: str, share: float) -> None:
        self._share = share
        self._resource = Resource.create(
            {"service.name": "softxent", "service.version": softxent.__version__}
        )
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS)
        self._sender = BatchSpanProcessor(exporter)
        self._ids = RandomIdGenerator()

    def record(self, record: Record) -> None:
        """Trace a request, if it is one that is traced; its record then knows the trace's id."""
        caller = _caller(record)
        if random.random() < self._share if caller is None else caller.trace_flags.sampled:
            self._trace(record, caller)

    def _trace(self, record: Record, caller: SpanContext | None) -> None:
        end = _nanoseconds(record.ended)
        start = end - _nanoseconds(record.whole)
        name = f"{record.scope.get('method', '')} {record.route}"
        server = self._context(caller)
        record.trace_id = f"{server.trace_id:032x}"
        attributes = _attributes(record)
        failed = record.status >= 500
        self._send(name, server, caller, (start, end), attributes, failed=failed)
        for stage, seconds in zip(STAGES, record.seconds, strict=True):
            stage_end = start + _nanoseconds(seconds)
            if seconds >= SHORTEST_STAGE:
                self._send(stage, self._context(server), server, (start, stage_end))
            start = stage_end

    def _context(self, parent: SpanContext | None) -> SpanContext:
        """Return the context of a new span, of its parent's trace if it has one."""
        span = self._ids.generate_span_id()
        if parent is None:
            trace = self._ids.generate_trace_id()
            return SpanContext(trace, span, False, TraceFlags(TraceFlags.SAMPLED))
        return SpanContext(parent.trace_id, span, False, parent.trace_flags, parent.trace_state)

    def _send(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        times: tuple[int, int],
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        failed: bool = False,
    ) -> None:
        """Have a span sent; only that of a whole request has attributes."""
        self._sender.on_end(
            ReadableSpan(
                name,
                context,
                parent,
                self._resource,
                attributes,
                kind=SpanKind.INTERNAL if attributes is None else SpanKind.SERVER,
                status=_FAILED if failed else _OK,
                start_time=times[0],
                end_time=times[1],
                instrumentation_scope=_SCOPE,
            )
        )

    def close(self) -> None:
        """Send what waits, as far as the collector takes it in time."""
        # The sender's own time limit is half a minute, where nobody answers.
        sending = Thread(target=self._sender.shutdown, daemon=True)
        sending.start()
        sending.join(timeout=CLOSE_SECONDS)


def _caller(record: Record) -> SpanContext | None:
    """Return what the headers `traceparent` and `tracestate` say, None where they say nothing."""
    carried = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in record.scope.get("headers", ())
        if name in _context_headers
    }
    if not carried:
        return None
    caller = get_current_span(_context.extract(carried, Context())).get_span_context()
    return caller if caller.is_valid else None


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
        for stage, seconds in zip(STAGES, record.seconds, strict=True):
            attributes[f"softxent.{stage}_ms"] = round(seconds * 1e3, 3)
    if record.problem is not None:
        attributes["error.type"] = record.problem
    return attributes


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
