"""`anybinder prices`, and reading them anew."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from providers import prices
from tests.doubles.price_list import PriceList, listed, row, serving
from tests.journeys.conftest import COMMAND


@pytest.fixture
def public() -> Iterator[PriceList]:
    with serving() as server:
        server.body = listed(row("m6i.large", "0.0960000000"), row("new1.large", "0.2"))
        yield server


@pytest.fixture
def run(home: Path, public: PriceList) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`anybinder prices …` in a process of its own, with a backend on AWS whose list is the server's."""
    backends = [
        {"name": "here", "provider": "local"},
        {"name": "west", "provider": "aws", "configuration": {"region": "us-west-2", "endpoint_url": public.url}},
    ]

    def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "ANYBINDER_HOME": str(home), "ANYBINDER_BACKENDS": json.dumps(backends)}
        ended = subprocess.run(
            [*COMMAND, "prices", *words], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == code, (words, ended.stdout, ended.stderr)
        return ended

    return run


def shown(ended: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    return {one["machine"]: one for one in map(json.loads, ended.stdout.splitlines())}


def test_what_is_read_anew_goes_before_the_curated_table(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    before = shown(run("--json"))
    assert before["m6i.large"]["as_of"] == "2025-03-02"
    assert before["m6i.large"]["old"]
    assert "new1.large" not in before
    said = run("refresh").stderr
    assert "west: 2 prices." in said
    assert "here: It has no public price list" in said
    after = shown(run("--json", "--backend", "west"))
    assert (after["m6i.large"]["as_of"], after["m6i.large"]["source"]) == ("2026-11-27", "AWS public price list")
    assert after["new1.large"]["price_per_hour"] == "0.2"
    assert after["t3.large"] == before["t3.large"], "what the list does not name stays known"


def test_where_the_list_cannot_be_read_the_old_prices_stay(
    run: Callable[..., subprocess.CompletedProcess[str]], public: PriceList, home: Path
) -> None:
    run("refresh", "--backend", "west")
    kept = (home / "prices" / "west.csv").read_text()
    public.breaks_off_after = len(public.body) - 10
    said = run("refresh", "--backend", "west", code=1).stderr
    assert "could not be read" in said
    assert "The prices of before stay" in said
    assert (home / "prices" / "west.csv").read_text() == kept
    assert len(prices.read(home / "prices" / "west.csv")) == 2
    assert len(list((home / "prices").iterdir())) == 1


def test_the_table_says_how_old_a_price_is(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    table = run("--backend", "west").stdout
    line = next(line for line in table.splitlines() if " t3.large " in line)
    assert "0.0832 USD" in line
    assert "2025-03-02" in line
    assert "days old" in line


def test_what_has_no_table_is_named(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert "as far as that is known: here." in run().stderr


def test_an_unknown_backend_is_a_sentence(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert "no backend called “moon”" in run("--backend", "moon", code=2).stderr
    assert "no backend called “moon”" in run("refresh", "--backend", "moon", code=2).stderr
