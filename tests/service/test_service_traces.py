"""Traces, as a receiver of OTLP over HTTP gets them."""

from __future__ import annotations

import gzip
import json
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from service_support import GOOD, PATH, batch, post

from service_process import Service
from softxent_service.telemetry.record import STAGES

Start = Callable[..., Service]

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Receiver:
    """Takes what exporters send and keeps the spans."""

    def __init__(self) -> None:
        spans: queue.Queue[Span] = queue.Queue()
        self.spans = spans
        self.services: set[str] = set()
        services = self.services

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    told = {a.key: a.value.string_value for a in resource.resource.attributes}
                    services.add(told["service.name"])
                    for scope in resource.scope_spans:
                        for span in scope.spans:
                            spans.put(span)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def attributes(span: Span) -> dict[str, Any]:
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in span.attributes}


def taken(receiver: Receiver) -> list[Span]:
    spans = []
    while not receiver.spans.empty():
        spans.append(receiver.spans.get())
    return spans


def test_a_caller_s_trace_goes_on_here(start: Start, receiver: Receiver) -> None:
    service = start("--otlp-endpoint", receiver.url, "--trace-share=0")
    url = service.ready_url()
    told = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x_request_id": "traced"}
    large = {name: array.tolist() for name, array in batch(20, 1000).items()}
    assert post(url, json.dumps(large).encode(), **told).status_code == 200
    unwanted = {"traceparent": f"00-{TRACE[::-1]}-{PARENT}-00"}
    assert post(url, GOOD, **unwanted).status_code == 200
    assert post(url, GOOD).status_code == 200
    assert post(url, b"{", traceparent=f"00-{TRACE}-{PARENT}-01").status_code == 400
    service.wait_for(f'"trace":"{TRACE}"')
    assert service.end() == 0
    spans = taken(receiver)
    assert receiver.services == {"softxent"}
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    servers = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    assert [span.name for span in servers] == [f"POST {PATH}"] * 2
    assert {span.parent_span_id.hex() for span in servers} == {PARENT}
    whole, refused = sorted(servers, key=lambda span: span.start_time_unix_nano)
    assert attributes(whole)["softxent.request_id"] == "traced"
    assert attributes(whole)["http.response.status_code"] == 200
    assert attributes(whole)["softxent.dtype"] == "float32"
    assert attributes(refused)["error.type"] == "malformed-body"
    parts = [span for span in spans if span.parent_span_id == whole.span_id]
    took = {name: attributes(whole)[f"softxent.{name}_ms"] for name in STAGES}
    assert [part.name for part in parts] == [name for name in STAGES if took[name] >= 0.1]
    assert {"decode", "encode"} <= {part.name for part in parts}
    for part in parts:
        ms = (part.end_time_unix_nano - part.start_time_unix_nano) / 1e6
        assert ms == pytest.approx(took[part.name], abs=1e-3)
        assert whole.start_time_unix_nano <= part.start_time_unix_nano
        assert part.start_time_unix_nano <= part.end_time_unix_nano <= whole.end_time_unix_nano


def test_the_service_decides_where_nobody_has(start: Start, receiver: Receiver) -> None:
    service = start("--otlp-endpoint", f"{receiver.url}/", "--trace-share=1")
    url = service.ready_url()
    for parent in ("", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01"):
        assert post(url, GOOD, traceparent=parent).status_code == 200
    assert service.end() == 0
    names = [span.name for span in taken(receiver) if span.kind == Span.SPAN_KIND_SERVER]
    assert names.count(f"POST {PATH}") == 4


def test_a_collector_that_is_not_there_stops_nothing(start: Start) -> None:
    service = start("--otlp-endpoint", "http://127.0.0.1:1", "--trace-share=1")
    url = service.ready_url()
    assert post(url, GOOD).status_code == 200
    assert service.end() == 0


def test_without_an_endpoint_nothing_of_it_is_imported() -> None:
    code = (
        "import sys; from softxent_service.http.app import create_app;"
        "from softxent_service.http.readiness import Readiness;"
        "from softxent_service.settings import Settings;"
        "create_app(Settings(), Readiness()); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # FastAPI itself needs the API, which does nothing without the other two.
    parts = ("opentelemetry.sdk", "opentelemetry.exporter")
    assert not [name for name in done.stdout.split() if name.startswith(parts)]
