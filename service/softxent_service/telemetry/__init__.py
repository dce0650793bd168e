"""What the service tells about its work: metrics, timings, a line a request, traces."""
