"""Routes: each reads one request and writes its response."""
