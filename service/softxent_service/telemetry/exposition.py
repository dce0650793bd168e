"""Metrics in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from softxent_service.telemetry import metrics
from softxent_service.telemetry.metrics import BOUNDS, METRICS, Counts, Key

T = TypeVar("T")


def exposition(counts: Counts, accept: str, further: Iterable[Collector] = ()) -> tuple[bytes, str]:
    """Return the text that `accept` asks for, and its media type.

    `further` collectors tell what is not counted here, as prometheus_client's own of a process.
    """
    registry = CollectorRegistry(auto_describe=False)
    for collector in (_Collector(counts), *further):
        registry.register(collector)
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


class _Collector(Collector):
    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        for name, metric in METRICS.items():
            yield _FAMILIES[metric.kind](name, metric, self._counts)


def _counter(name: str, metric: metrics.Metric, counts: Counts) -> Metric:
    family = CounterMetricFamily(name, metric.text, labels=metric.labels)
    for labels, value in _series(name, metric, counts.counters):
        family.add_metric(labels, value)
    return family


def _gauge(name: str, metric: metrics.Metric, counts: Counts) -> Metric:
    family = GaugeMetricFamily(name, metric.text, labels=metric.labels)
    for labels, value in _series(name, metric, counts.gauges):
        family.add_metric(labels, value)
    return family


def _histogram(name: str, metric: metrics.Metric, counts: Counts) -> Metric:
    family = HistogramMetricFamily(name, metric.text, labels=metric.labels)
    bounds = [*map(str, BOUNDS), "+Inf"]
    if not metric.labels:
        counts.histograms[name,]  # One without labels is shown from the start.
    for (_, *labels), (total, *row) in _named(name, counts.histograms):
        family.add_metric(labels, list(zip(bounds, accumulate(row), strict=True)), total)
    return family


_FAMILIES = {"counter": _counter, "gauge": _gauge, "histogram": _histogram}


def _series(
    name: str, metric: metrics.Metric, values: Mapping[Key, float]
) -> Iterator[tuple[list[str], float]]:
    """Yield labels and value of each series; one without labels is shown from the start."""
    if not metric.labels:
        yield [], values.get((name,), 0.0)
        return
    for (_, *labels), value in _named(name, values):
        yield labels, value


def _named(name: str, values: Mapping[Key, T]) -> list[tuple[Key, T]]:
    return sorted((item for item in values.items() if item[0][0] == name), key=lambda i: i[0])
