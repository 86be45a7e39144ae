"""What else is found at a BinderHub: versions, health, metrics, repository hosts, badges and the old addresses."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY

from broker import app, backends, launches, sessions, settings
from broker.models import Phase
from broker.web import callers, health, hub
from tests.broker.conftest import Bench
from tests.broker.streams import Stream
from tests.broker.test_binder import Hub

MakeBench = Callable[..., Bench]
DESK = settings.BackendSetting(name="desk", provider="fake")


def client(bench: Bench) -> TestClient:
    return TestClient(app.create(bench.at), base_url="http://localhost:8000", raise_server_exceptions=False)


def limited(bench: Bench, most: int) -> None:
    """Let so many run on the desk."""
    found = bench.at.backends["desk"]
    bench.at.backends["desk"] = replace(found, setting=found.setting.model_copy(update={"max_sessions": most}))


# --- versions -----------------------------------------------------------------------------------------------------------


def test_versions_have_binderhubs_shape(bench: Bench) -> None:
    shown = client(bench).get("/versions").json()
    assert set(shown) == {"builder_info", "binderhub"}
    assert set(shown["builder_info"]) == {"repo2docker-version"}


def test_versions_can_be_a_federations_own(make_bench: MakeBench) -> None:
    prime = {"builder_info": {"build_image": "quay.io/x:1"}, "binderhub": "1.0.0-0.dev", "builder": "quay.io/x:1"}
    bench = make_bench(versions=prime)
    answer = client(bench).get("/versions", headers={"Origin": "https://elsewhere.example"})
    assert answer.json() == prime
    assert answer.headers["access-control-allow-origin"] == "*"


# --- health -------------------------------------------------------------------------------------------------------------


def test_health_has_the_checks_that_status_pages_read_in_their_order(make_bench: MakeBench) -> None:
    bench = make_bench(backends=(DESK,), binder_backend="desk")
    limited(bench, 100)
    bench.ready()
    bench.advance(bench.request())
    bench.request()
    answer = client(bench).get("/health")
    assert answer.status_code == 200
    registry, api, quota, database = answer.json()["checks"]
    assert registry == {"service": "Docker registry", "ok": True}
    assert api == {"service": "JupyterHub API", "ok": True}
    assert quota == {
        "service": "Pod quota",
        "total_pods": 2,
        "build_pods": 1,
        "user_pods": 1,
        "quota": 100,
        "ok": True,
        "_ignore_failure": True,
    }
    assert database == {"service": "Database", "ok": True}
    assert (answer.json()["ok"], answer.json()["launches"]) == (True, 3)


def test_the_quota_may_be_the_operators_word_and_being_over_it_is_no_failure(make_bench: MakeBench) -> None:
    bench = make_bench(launch_quota=0)
    bench.ready()
    answer = client(bench).get("/health")
    quota = answer.json()["checks"][2]
    assert (answer.status_code, quota["quota"], quota["ok"]) == (200, 0, False)


def test_no_quota_is_null(bench: Bench) -> None:
    assert client(bench).get("/health").json()["checks"][2]["quota"] is None


def test_health_answers_head(bench: Bench) -> None:
    answer = client(bench).head("/health")
    assert (answer.status_code, answer.text) == (200, "")


@pytest.mark.parametrize("path", ["/versions", "/metrics", "/api/repoproviders", "/_config"])
def test_whoever_asks_for_heads_gets_them(bench: Bench, path: str) -> None:
    answer = client(bench).head(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_table_out_of_reach_is_503_with_the_same_checks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("canary")

    monkeypatch.setattr("broker.reaper.unfinished", broken)
    answer = client(bench).get("/health")
    assert answer.status_code == 503
    assert [check["service"] for check in answer.json()["checks"]][:3] == [
        "Docker registry",
        "JupyterHub API",
        "Pod quota",
    ]
    assert answer.json()["checks"][3] == {"service": "Database", "ok": False, "error": "OSError"}
    assert answer.json()["ok"] is False
    assert client(bench).head("/health").status_code == 503


def test_a_registry_that_is_down_is_503(make_bench: MakeBench) -> None:
    chosen = DESK.model_copy(update={"configuration": {"registry": "127.0.0.1:9"}})
    answer = client(make_bench(backends=(chosen,))).get("/health")
    assert (answer.status_code, answer.json()["checks"][0]) == (503, {"service": "Docker registry", "ok": False})


def test_the_count_is_looked_at_once_a_minute(make_bench: MakeBench) -> None:
    bench, now = make_bench(), [0.0]
    checks = health.Health(bench.at, clock=lambda: now[0])
    assert checks.report()["checks"][2]["total_pods"] == 0
    bench.ready()
    now[0] = 59.0
    assert checks.report()["checks"][2]["total_pods"] == 0
    now[0] = 60.0
    assert checks.report()["checks"][2]["total_pods"] == 1


def test_many_that_ask_at_once_look_once() -> None:
    looks, go, now = [], threading.Event(), [0.0]

    def look() -> int:
        looks.append(1)
        assert go.wait(10)
        return len(looks)

    seldom = health.Seldom(look, 15, lambda: now[0])
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(seldom())) for _ in range(10)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(10)
    assert found == [1] * 10
    now[0] = 15.0
    assert seldom() == 2


def test_a_look_that_fails_is_not_kept() -> None:
    answers: list[Any] = [OSError("once"), 7]

    def look() -> int:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return int(found)

    seldom = health.Seldom(look, 15, lambda: 0.0)
    with pytest.raises(OSError, match="once"):
        seldom()
    assert seldom() == 7


# --- metrics ------------------------------------------------------------------------------------------------------------


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_metrics_count_under_binderhubs_names(bench: Bench) -> None:
    here = client(bench)
    about = {"provider": "Git repository", "repo": bench.repo}
    before = here.get("/metrics").text
    for name in (
        "binderhub_build_time_seconds",
        "binderhub_launch_time_seconds",
        "binderhub_build_count_total",
        "binderhub_launch_count_total",
        "binderhub_inprogress_builds",
        "binderhub_inprogress_launches",
        "binderhub_github_rate_limit_remaining",
    ):
        assert name.removesuffix("_total") in before
    built = value("binderhub_build_time_seconds_count", status="success")
    took = value("binderhub_build_time_seconds_sum", status="success")
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    bench.report(launch, ("building", "Installing."))
    here.get("/metrics")
    assert value("binderhub_inprogress_builds") == 1
    bench.clock.move(seconds=90)
    bench.report(launch, ("launching", "Starting."), first=2, server="up")
    here.get("/metrics")
    assert (value("binderhub_inprogress_builds"), value("binderhub_inprogress_launches")) == (0, 1)
    bench.clock.move(seconds=3)
    sessions.tunnelled(bench.at, launch.id)
    bench.advance(launch)
    for _ in range(2):  # once, however often one looks
        here.get("/metrics")
        assert value("binderhub_build_time_seconds_count", status="success") == built + 1
        assert value("binderhub_build_time_seconds_sum", status="success") == took + 90
    assert value("binderhub_launch_count_total", status="success", **about) == 1
    assert value("binderhub_build_count_total", status="success", **about) == 1
    assert value("binderhub_launch_time_seconds_count", status="success", retries="0") >= 1


def test_a_build_that_fails_is_counted_as_one_and_a_stop_as_nothing(bench: Bench) -> None:
    here = client(bench)
    here.get("/metrics")
    about = {"provider": "Git repository", "repo": bench.repo}
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    bench.report(launch, ("building", "Installing."), ("failed", "No."))
    bench.until_stopped(launch)
    stopped = bench.request()
    launches.stop(bench.at, stopped.id)
    bench.until_stopped(stopped)
    here.get("/metrics")
    assert value("binderhub_build_count_total", status="failure", **about) == 1
    assert value("binderhub_launch_count_total", status="failure", **about) == 0
    assert Phase.FAILED.value in bench.phases(launch)


def test_quotas_are_counted_as_binderhub_does(make_bench: MakeBench) -> None:
    bench = make_bench(backends=(DESK,), binder_backend="desk", hosts={"git": settings.HostSetting(per_repo_quota=1)})
    here, about = Hub(bench), {"provider": "Git repository", "repo": bench.repo}
    with here.build():
        here.only()
    with here.build() as stream:
        stream.whole()
    limited(bench, 0)
    with here.build() as stream:
        stream.whole()
    assert value("binderhub_launch_count_total", status="repo_quota", **about) == 1
    assert value("binderhub_launch_count_total", status="pod_quota", **about) == 1


# --- repository hosts ---------------------------------------------------------------------------------------------------


def test_repository_hosts_have_binderhubs_shape(bench: Bench) -> None:
    listed = client(bench).get("/api/repoproviders").json()
    assert listed[0]["id"] == "gh"
    for shown in listed:
        assert set(shown) - {"detect"} == {"displayName", "id", "spec", "repo", "ref"}
        assert set(shown["spec"]) == {"validateRegex"}
        assert set(shown["repo"]) == {"label", "placeholder", "urlEncode"}
        assert isinstance(shown["repo"]["urlEncode"], bool)
        assert shown["ref"] == {"enabled": True, "default": "HEAD"} or shown["ref"]["enabled"] is False
        assert "(?<repo>" in shown.get("detect", {"regex": "(?<repo>"})["regex"]
        assert "(?P<" not in json.dumps(shown)


def test_older_clients_find_the_same_under_config(bench: Bench) -> None:
    shown = client(bench).get("/_config").json()
    assert set(shown["gh"]) == {"text", "tag_text", "ref_prop_disabled", "label_prop_disabled"}


# --- addresses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/repo/o/r", "/v2/gh/o/r/master"),
        ("/repo/o/r/", "/v2/gh/o/r/master"),
        ("/repo/o/r/notebooks/index.ipynb", "/v2/gh/o/r/master?urlpath=%2Fnotebooks%2Findex.ipynb"),
        ("/repo/o%2f/r%3Fx/a%26b=c", "/v2/gh/o/r%3Fx/master?urlpath=%2Fa%26b%3Dc"),
        ("/repo//evil.example/x", None),
    ],
)
def test_binders_first_links_still_lead_there(bench: Bench, old: str, new: str | None) -> None:
    for method in ("GET", "HEAD"):
        answer = client(bench).request(method, old, follow_redirects=False)
        if new is None:
            assert "evil.example" not in answer.headers.get("location", "").partition("/v2/")[0]
        elif "%2f" not in old:
            assert (answer.status_code, answer.headers["location"]) == (302, new)


@pytest.mark.parametrize("path", hub.IMAGES)
def test_badges_and_icons_are_really_there(bench: Bench, path: str) -> None:
    here = client(bench)
    answer, head = here.get(path), here.head(path)
    assert (answer.status_code, head.status_code, head.content) == (200, 200, b"")
    kind = answer.headers["content-type"]
    assert len(answer.content) < 10_000
    if path.endswith(".svg"):
        assert kind == "image/svg+xml"
        drawn = ElementTree.fromstring(answer.text)
        assert drawn.tag.endswith("svg")
        assert drawn.attrib["aria-label"] == "launch binder"
        assert not re.search("script|href|onload", answer.text)
    else:
        assert kind in ("image/png", "image/x-icon", "image/vnd.microsoft.icon")
        assert answer.content[:4] in (b"\x89PNG", b"\x00\x00\x01\x00")


@pytest.mark.parametrize(
    "path", ["/nonexistent", "/v3/x", "/favicon_other.ico", "/build", "/build/gh", "/build/", "/repo/x"]
)
@pytest.mark.parametrize("accept", ["*/*", "text/html"])
def test_what_is_not_there_is_404(bench: Bench, path: str, accept: str) -> None:
    assert client(bench).get(path, headers={"accept": accept}).status_code == 404


def test_without_pages_only_the_api_answers(make_bench: MakeBench) -> None:
    bench = make_bench(api_only=True)
    here = client(bench)
    for path in ("/health", "/versions", "/metrics", "/api/repoproviders"):
        assert here.get(path).status_code == 200, path
    for path in (
        "/",
        "/_config",
        "/badge.svg",
        "/repo/o/r",
        "/v2/gh/o/r/HEAD",
        "/sessions",
        "/static/app.css",
        "/about",
    ):
        answer = here.get(path, headers={"accept": "text/html"}, follow_redirects=False)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/json"), path
    with Stream(here.app, "/build/nope/x") as stream:
        assert stream.whole()[-1]["phase"] == "failed"


# --- where requests come from -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "said", "found"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "10.9.9.9", "192.0.2.1"),
        ("10.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("10.0.0.1", "6.6.6.6, 192.0.2.7", "192.0.2.7"),
        ("10.0.0.1", "6.6.6.6, 192.0.2.7, 10.0.0.2", "192.0.2.7"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("::ffff:192.0.2.1", "", "192.0.2.1"),
    ],
)
def test_a_client_is_who_a_trusted_proxy_says_it_is(peer: str, said: str, found: str) -> None:
    headers = [(b"x-forwarded-for", said.encode())] if said else []
    scope = {"type": "http", "client": (peer, 1), "headers": headers}
    assert callers.address(scope, ("10.0.0.1", "10.0.0.2")) == found


def test_a_unix_socket_has_no_address() -> None:
    assert callers.address({"type": "http", "client": None, "headers": []}, ()) == "unknown"


def test_backends_without_a_registry_ask_none(bench: Bench) -> None:
    assert health.registries(bench.at) == set()
    assert backends.named(bench.at, "desk").title == "Desk"
