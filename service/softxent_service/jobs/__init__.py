"""Batch jobs: cross-entropy over arrays at rest, durable, to the bits of the online call."""
