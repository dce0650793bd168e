"""Middleware before every route: telemetry, CORS, shutdown, authentication."""
