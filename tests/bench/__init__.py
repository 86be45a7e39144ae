"""Beside configurable-http-proxy and beside no proxy, on one computer and in one run: `python -m tests.bench`."""
