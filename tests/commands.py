"""The commands of `anybinder` that need no running broker, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from broker import settings
from broker.cli import app


@contextmanager
def images(monkeypatch: pytest.MonkeyPatch, home: Path, backend: dict[str, Any]) -> Iterator[Callable[..., str]]:
    """`anybinder images …` of a broker with this one backend: what it says, both kinds of output together."""
    monkeypatch.setenv("ANYBINDER_HOME", str(home))
    monkeypatch.setenv("ANYBINDER_BACKENDS", json.dumps([backend]))

    def run(*words: str, code: int = 0) -> str:
        ended = CliRunner().invoke(app, ["images", *words])
        assert ended.exit_code == code, ended.output
        return str(ended.output)

    settings.current.cache_clear()
    yield run
    settings.current.cache_clear()
