"""`@jupyterhub/binderhub-client`, as published, in node: both versions that there are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest

from tests.clients.conftest import NOTEBOOK, Hub
from tests.journeys.conftest import compute

SCRIPT = Path(__file__).with_name("client.mjs")
VERSIONS = ("0.4.0", "0.5.0")
READY = {
    "phase", "message", "image", "repo_url", "token", "binder_ref_url", "binder_launch_host", "binder_request",
    "binder_persistent_request", "binder_client_ip", "url",
}  # fmt: skip


def heard(packages: Path, version: str, spec: str, hub: Hub, *token: str) -> list[dict[str, Any]]:
    """What the client was told."""
    words = ["node", str(SCRIPT), str(packages), version, spec, f"http://127.0.0.1:{hub.port}/build", *token]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False, stdin=subprocess.DEVNULL)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_client_reaches_a_session_that_computes(hub: Hub, packages: Path, version: str) -> None:
    repo = hub.repository("clients/lab", {"a b.ipynb": json.dumps(NOTEBOOK)})
    *events, into = heard(packages, version, f"git/{quote(repo, safe='')}/main", hub)
    phases = [event.get("phase") for event in events]
    assert phases[0] == "waiting"
    assert phases[-1] == "ready"
    assert "failed" not in phases
    ready = events[-1]
    assert set(ready) >= READY
    assert ready["url"].endswith("/")
    way = urlsplit(into["into"])
    assert way.path.endswith(("/doc/tree/a%20b.ipynb", "/lab/tree/a%20b.ipynb"))
    assert parse_qs(way.query)["token"] == [ready["token"]]
    assert httpx.get(into["into"], follow_redirects=True, timeout=30).status_code == 200
    assert compute(ready, "print(6 * 7)") == "42\n"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_client_hears_why_nothing_came_of_it(hub: Hub, packages: Path, version: str) -> None:
    repo = hub.repository("clients/failing", {"postBuild": "#!/bin/sh\necho it went wrong\nexit 1\n"})
    events = heard(packages, version, f"git/{quote(repo, safe='')}/main", hub)
    assert events[-1]["phase"] == "failed"
    assert "it went wrong" in "".join(event["message"] for event in events)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_build_token_that_is_none_is_refused_with_an_event(hub: Hub, packages: Path, version: str) -> None:
    repo = hub.repository("clients/lab", {"a b.ipynb": json.dumps(NOTEBOOK)})
    events = heard(packages, version, f"git/{quote(repo, safe='')}/main", hub, "not-a-token")
    assert [(event["phase"], event.get("status_code")) for event in events] == [("failed", 403)]
    assert "Invalid build token" in events[0]["message"]


def test_a_link_is_shown_under_any_name(hub: Hub) -> None:
    """Upstream's tests ask for it with a host of their own making (test_main.py)."""
    url = f"http://127.0.0.1:{hub.port}"
    named = {"Host": "my.host", "Origin": "https://my.origin"}
    assert "window.pageConfig = " in httpx.get(f"{url}/v2/gh/o/r/main", headers=named).text
    assert httpx.get(f"{url}/versions", headers=named).status_code == 421
    assert httpx.post(f"{url}/v2/gh/o/r/main", headers=named).status_code == 421
