"""Telemetry: metrics, timings, a log line for each request, traces."""
