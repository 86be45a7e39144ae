"""`python -m broker.cli`: the same as `anybinder`."""

from broker.cli import app

app()
