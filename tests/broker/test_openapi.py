"""The description of the interface keeps its word, whatever is sent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance  # not every text names a repository

from broker import app
from tests.broker.conftest import Bench

OWN = {"Host": "localhost:8000", "Origin": "http://localhost:8000"}
EXAMPLES = 30  # of each operation and kind
OPERATIONS = (
    ("POST", "/api/launches"),
    ("GET", "/api/launches"),
    ("GET", "/api/launches/{launch_id}"),
    ("DELETE", "/api/launches/{launch_id}"),
    ("POST", "/api/launches/{launch_id}/extend"),
    ("GET", "/api/launches/{launch_id}/events"),
    ("GET", "/api/launches/{launch_id}/console"),
    ("GET", "/api/launches/{launch_id}/phases"),
    ("GET", "/api/launches/{launch_id}/archive"),
    ("GET", "/api/resolve"),
    ("GET", "/api/backends"),
    ("GET", "/api/places"),
    ("GET", "/api/places/stream"),
    ("POST", "/api/keys"),
    ("POST", "/api/reap"),
    ("GET", "/api/me"),
    ("GET", "/api/tokens"),
    ("POST", "/api/tokens"),
    ("DELETE", "/api/tokens/{token_id}"),
    ("POST", "/api/device"),
    ("POST", "/api/device/token"),
    ("POST", "/agent/enrol"),
    ("POST", "/agent/report"),
    ("GET", "/agent/files/{sha256}"),
    ("GET", "/build/{prefix}/{spec}"),
    ("GET", "/versions"),
    ("GET", "/health"),
    ("GET", "/api/repoproviders"),
    ("GET", "/metrics"),
    ("GET", "/.well-known/openid-configuration"),
    ("GET", "/.well-known/jwks.json"),
    ("GET", "/.well-known/anybinder-probe/{nonce}"),
    ("GET", "/api/connections"),
    ("GET", "/api/running"),
)


@pytest.fixture
def made(make_bench: Callable[..., Bench]) -> FastAPI:
    return app.create(make_bench(rate_limit=0).at)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
@pytest.mark.parametrize("kind", list(schemathesis.GenerationMode))
def test_no_answer_is_one_that_is_not_described(made: FastAPI, method: str, path: str, kind: Any) -> None:
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", made, headers=OWN)
    operation = schema[path][method]
    told = {**OWN, "Accept": "text/event-stream"} if path.startswith("/build") else OWN
    keys = ["", f"Bearer {made.state.door.bearer}"]

    def call(case: Any, key: str) -> None:
        answer = case.call(headers={**(case.headers or {}), **told, "Authorization": key})
        case.validate_response(answer, excluded_checks=[positive_data_acceptance, *not_ours(answer)])

    with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # what takes nothing can be sent nothing wrong
        given(operation.as_strategy(generation_mode=kind), keys)(call)()


def not_ours(answer: Any) -> list[Any]:
    """`a/b` is a repository on GitHub, which is out of reach here: that is said, and no error of this broker's."""
    away = answer.status_code == 502 and answer.json().get("reason") == "repo_host"
    return [not_a_server_error] if away else []


def given(cases: Any, keys: list[str]) -> Callable[[Any], Any]:
    """So many examples, the same in each run."""
    chosen = hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
    )
    return lambda call: chosen(hypothesis.given(cases, hypothesis.strategies.sampled_from(keys))(call))


def test_every_operation_is_among_them(made: FastAPI) -> None:
    paths = TestClient(made, base_url="http://localhost:8000").get("/api/openapi.json").json()["paths"]
    assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == set(OPERATIONS)
