"""A private repository, from a person's own token to a running session; and where the token is found meanwhile and afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from broker import people, service, settings, uses
from tests.doubles import canary
from tests.doubles.private_repos import REPO, connect_token, private_host
from tests.journeys.conftest import Broker
from tests.journeys.test_launch import PLAIN_APP
from tests.waiting import until

TOKEN = "github_pat_canary-of-the-journey-4711"
USER = "x-access-token"


@pytest.mark.skipif(not canary.PROC.is_dir(), reason="here processes cannot be looked at")
def test_a_private_repository_runs_and_its_token_is_found_nowhere_but_sealed(
    start_broker: Callable[..., Broker], home: Path, tmp_path: Path
) -> None:
    with private_host(tmp_path, TOKEN, PLAIN_APP) as host:
        hosts = json.dumps({"gh": {"api": host.api, "url": host.url}})
        broker = start_broker(ANYBINDER_HOSTS=hosts)
        refused = broker.run("launch", REPO, code=1)
        assert "connect your own account" in refused.stderr
        at = service.build(settings.Settings(home=home, hosts=json.loads(hosts)), migrate=False)
        try:
            connect_token(at, people.LOCAL, TOKEN)
            with canary.watching(TOKEN, USER) as watch, ThreadPoolExecutor(1) as pool:
                launching = pool.submit(broker.launch, REPO, "--name", "mine")
                until(
                    lambda: [use for use in uses.of(at, people.LOCAL) if use.what == "clone"] or launching.done(),
                    seconds=60,
                )
                host.gate.clear()  # its git stands still, and is looked at
                asked = len(host.requests)
                until(lambda: len(host.requests) > asked or launching.done(), seconds=60)
                looks = watch.looks
                until(lambda: watch.looks > looks + 1)
                assert canary.in_files(home, TOKEN, USER) == []
                host.gate.set()
                ready = launching.result()
            assert watch.found == []
            assert any(name.startswith("git") for name in watch.seen)
            assert httpx.get(f"{ready['url']}x", params={"token": ready["token"]}).text == "hello from /x"
            said = broker.api("GET", f"/api/launches/{ready['launch']}").text + broker.run("logs", "mine").stdout
            assert TOKEN not in said
            assert canary.in_files(home, TOKEN, USER) == []  # table, logs, cache, instance, session's files
            assert canary.in_processes(TOKEN, USER) == []  # the session's too
            told = [(use.what, use.launch_id, use.outcome) for use in reversed(uses.of(at, people.LOCAL))]
            assert told == [("look up", None, ""), ("clone", ready["launch"], "")]
            assert {(user, secret) for _, user, secret in host.shown} == {("", TOKEN), (USER, TOKEN)}
        finally:
            at.close()
        broker.run("stop", "mine")
        assert canary.in_files(home, TOKEN, USER) == []
