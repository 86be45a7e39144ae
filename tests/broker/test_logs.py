"""Logs: one event a line, and no secret among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import structlog

from broker import logs, settings


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_shows_no_local_variable(form: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(settings.Settings(home=home, log_format=form))  # type: ignore[arg-type]

    def fail(token: str) -> None:
        raise ValueError(len(token))

    try:
        fail("canary-" + "0" * 8)
    except ValueError:
        structlog.get_logger("test").exception("it_failed")
    shown = capsys.readouterr().err
    structlog.reset_defaults()
    assert "it_failed" in shown
    assert "ValueError" in shown
    assert "canary-0" not in shown


def test_json_logs_carry_the_launch_they_are_about(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(settings.Settings(home=home, log_format="json"))
    with structlog.contextvars.bound_contextvars(launch="abc"):
        structlog.get_logger("test").info("something")
    structlog.reset_defaults()
    assert json.loads(capsys.readouterr().err)["launch"] == "abc"
