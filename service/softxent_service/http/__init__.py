"""The HTTP service; nothing here knows how a kernel is compiled."""
