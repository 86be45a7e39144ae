"""Signing in and out in a browser: every step, everything that can go wrong at it, and what is typed meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from broker import app
from tests.broker.conftest import Bench, Clock
from tests.doubles.openid_double import OpenIdDouble

HERE = "http://localhost:8000"
OWN = {"Origin": HERE, "Sec-Fetch-Site": "same-origin"}
PAGE = {"Accept": "text/html"}


@pytest.fixture
def campus(clock: Clock) -> Iterator[OpenIdDouble]:
    with OpenIdDouble(now=clock) as double:
        yield double


@pytest.fixture
def hub(make_bench: Callable[..., Bench], campus: OpenIdDouble) -> Bench:
    return make_bench(identities=(campus.setting(),))


def browser_of(bench: Bench) -> TestClient:
    return TestClient(
        app.create(bench.at), base_url=HERE, raise_server_exceptions=False, follow_redirects=False, headers=PAGE
    )


@pytest.fixture
def browser(hub: Bench) -> Iterator[TestClient]:
    with browser_of(hub) as made:
        yield made


def test_somebody_signs_in_and_goes_on_where_they_were(browser: TestClient, campus: OpenIdDouble) -> None:
    back = campus.sign_in(browser, path="/login/campus?next=/sessions")
    assert (back.status_code, back.headers["location"]) == (303, "/sessions")
    assert browser.get("/sessions").status_code == 200
