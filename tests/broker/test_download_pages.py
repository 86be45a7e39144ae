"""Where pages offer what somebody made, and say that it goes."""

from __future__ import annotations

import datetime as dt

from fastapi.testclient import TestClient

from broker import downloads, errors, launches
from broker.models import Launch
from tests.broker.conftest import Bench, Clock


def test_where_one_may_stop_a_session_its_files_are_offered_first(bench: Bench, client: TestClient) -> None:
    launch = bench.ready()
    link = f'href="/launches/{launch.id}/download"'
    for page in (f"/launches/{launch.id}", "/sessions", "/running"):
        text = client.get(page).text
        assert link in text, page
        assert text.index(link) < text.index(f'action="/launches/{launch.id}/stop"'), page


def test_a_quarter_of_an_hour_before_its_end_that_is_said(bench: Bench, client: TestClient, clock: Clock) -> None:
    launch = bench.ready(hours=1)
    assert 'id="soon"' not in client.get(f"/launches/{launch.id}").text
    clock.time = launch.deadline_at - dt.timedelta(minutes=14)
    bench.report(launch, server="up", kind="jupyter", last_activity=clock.time.isoformat())
    page = client.get(f"/launches/{launch.id}").text
    assert "download what you want to keep now" in page
    assert "unless somebody does" not in page


def test_before_it_ends_because_nobody_uses_it_that_is_said(bench: Bench, client: TestClient, clock: Clock) -> None:
    launch = bench.ready()
    clock.time = clock.time + dt.timedelta(minutes=launch.idle_minutes - 4)
    assert "unless somebody does" in client.get(f"/launches/{launch.id}").text
    bench.report(launch, server="up", kind="jupyter", last_activity=clock.time.isoformat())
    assert 'id="soon"' not in client.get(f"/launches/{launch.id}").text


def test_before_it_is_ready_and_after_its_end_there_is_a_sentence(bench: Bench, client: TestClient) -> None:
    launch = bench.request()
    early = client.get(f"/launches/{launch.id}/download")
    assert (early.status_code, "not ready yet" in early.text) == (409, True)
    launches.stop(bench.at, launch.id)
    gone = client.get(f"/launches/{launch.id}/download")
    assert (gone.status_code, "its files went with it" in gone.text) == (410, True)


def test_a_link_of_another_page_leads_to_the_launch_and_packs_nothing(bench: Bench, client: TestClient) -> None:
    launch = bench.ready()
    for site in ("cross-site", "same-site"):
        led = client.get(f"/launches/{launch.id}/download", headers={"Sec-Fetch-Site": site})
        assert (led.status_code, led.headers["location"]) == (303, f"/launches/{launch.id}")


def test_its_name_is_safe_whatever_the_repository_is_called(bench: Bench) -> None:
    launch = bench.ready()
    day = f"{bench.at.now():%Y-%m-%d}"
    for url, name in {
        "https://github.com/o/Stars.git": "stars",
        'https://x/o/a"b\r\nSet-Cookie: x': "a-bset-cookie-x",
        "https://x/%2e%2e/%00": "repo",
    }.items():
        assert downloads.called(bench.at, Launch(id=launch.id, repo_url=url)) == f"{name}-{day}"


def test_what_the_machine_says_is_never_shown_as_its_own_words() -> None:
    for told in ({"reason": "<b>give me your password</b>"}, {"reason": None}, {}):
        assert str(downloads.refusal(told, 10**9)) == str(errors.OutOfReach())
    assert "1 GB" in str(downloads.refusal({"reason": "too_large", "bytes": "<b>"}, 10**9))
