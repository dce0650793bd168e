"""Limits on memory, concurrency and request bodies."""
