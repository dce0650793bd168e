"""Load tests over HTTP, of any deployment: `cd benchmarks && python -m load URL`."""
