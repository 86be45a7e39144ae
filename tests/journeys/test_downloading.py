"""What somebody made in a session comes home as an archive, before it goes."""

from __future__ import annotations

import contextlib
import io
import json
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.journeys.conftest import Broker, compute
from tests.journeys.test_launch import PLAIN_APP
from tests.waiting import until

Repos = tuple[str, Callable[[str, dict[str, Any]], str]]
NOTEBOOKS = {"requirements.txt": "six\n", "index.ipynb": "{}", "data.txt": "42"}
LARGE = 200_000_000
FLAT = 30_000_000  # what broker and agent may grow by, whatever is downloaded


@pytest.fixture
def broker(start_broker: Callable[..., Broker], built_before: dict[str, str]) -> Broker:
    return start_broker(**built_before)


@pytest.fixture
def ready(broker: Broker, repos: Repos) -> dict[str, Any]:
    """A session with notebooks."""
    url, make = repos
    make("stars", NOTEBOOKS)
    return broker.launch(f"{url}/stars", "--name", "mine")


def address(broker: Broker, ready: dict[str, Any]) -> str:
    at = broker.address
    return f"http://{at['host']}:{at['port']}/api/launches/{ready['launch']}/archive"


@contextlib.contextmanager
def downloading(broker: Broker, ready: dict[str, Any], token: str = "") -> Iterator[httpx.Response]:
    headers = {"Authorization": f"Bearer {token or ready['token']}"}
    with httpx.stream("GET", address(broker, ready), headers=headers, timeout=60) as answer:
        yield answer


def packers(broker: Broker) -> list[psutil.Process]:
    """Processes that pack for a session of this broker."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "--archive" in process.cmdline() and str(broker.home) in process.cwd():
                found.append(process)
    return found


def test_what_was_changed_and_made_is_in_it_in_either_size(either_size: Broker, repos: Repos) -> None:
    url, make = repos
    make("stars", NOTEBOOKS)
    ready = either_size.launch(f"{url}/stars")
    compute(ready, "open('data.txt', 'a').write('43'); open('made here.txt', 'w').write('new')")
    with downloading(either_size, ready) as answer:
        assert answer.status_code == 200
        name = re.fullmatch(
            r'attachment; filename="(stars-\d{4}-\d\d-\d\d)\.zip"', answer.headers["content-disposition"]
        )
        assert name
        assert answer.headers["content-type"] == "application/zip"
        assert answer.headers["x-content-type-options"] == "nosniff"
        found = zipfile.ZipFile(io.BytesIO(answer.read()))
    assert found.testzip() is None
    assert found.read(f"{name[1]}/data.txt") == b"4243"
    assert found.read(f"{name[1]}/made here.txt") == b"new"
    assert f"{name[1]}/.git/HEAD" in found.namelist()
    assert "ok.json" not in str(found.namelist())
    until(
        lambda: "The files of this session were downloaded" in either_size.run("logs", ready["launch"]).stdout,
        seconds=20,
    )


def test_much_is_downloaded_with_little_memory_while_the_session_answers(broker: Broker, ready: dict[str, Any]) -> None:
    compute(
        ready,
        f"import os\nwith open('large.bin', 'wb') as file:\n  for _ in range({LARGE // 10**6}): file.write(os.urandom(10**6))",
    )
    agents = [each for each in psutil.process_iter(["cmdline"]) if "agent.py" in " ".join(each.info["cmdline"] or [])]
    watched = [
        psutil.Process(broker.address["pid"]),
        *(each for each in agents if str(broker.home) in str(each.cmdline())),
    ]
    assert len(watched) == 3  # the broker, a guardian and its worker
    before = [each.memory_info().rss for each in watched]
    most, size, answers, done = list(before), 0, [], threading.Event()

    def ask() -> None:
        headers = {"Authorization": f"token {ready['token']}"}
        with httpx.Client(headers=headers, timeout=30) as client:
            while not done.is_set():
                began = time.monotonic()
                client.get(f"{ready['url']}api/status").raise_for_status()
                answers.append(time.monotonic() - began)
                done.wait(0.05)

    asking = threading.Thread(target=ask)
    asking.start()
    with downloading(broker, ready) as answer:
        for piece in answer.iter_raw():
            size += len(piece)
            most = [max(one, each.memory_info().rss) for one, each in zip(most, watched, strict=True)]
    done.set()
    asking.join()
    grown = [one - other for one, other in zip(most, before, strict=True)]
    print(
        "grown", grown, "answers", len(answers), "slowest", max(answers), "median", sorted(answers)[len(answers) // 2]
    )
    assert size > LARGE
    assert max(grown) < FLAT, grown
    assert sorted(answers)[len(answers) * 9 // 10] < 1, "the session answers while its files are downloaded"


def test_whoever_leaves_half_way_ends_the_packing_and_the_next_may_begin(broker: Broker, ready: dict[str, Any]) -> None:
    compute(ready, "import os; open('large.bin', 'wb').write(os.urandom(50_000_000))")
    with downloading(broker, ready) as answer:
        pieces = answer.iter_raw(1000)
        next(pieces)
        assert packers(broker)
        refused = httpx.get(address(broker, ready), headers={"Authorization": f"Bearer {ready['token']}"})
        assert (refused.status_code, refused.json()["reason"]) == (429, "download_under_way")
    until(lambda: not packers(broker), seconds=5, what="the packing has ended")

    def begins() -> bool:
        with downloading(broker, ready) as again:
            return again.status_code == 200

    until(begins, seconds=5)
    until(lambda: not packers(broker), seconds=5)


def test_the_command_line_brings_it_home_once(broker: Broker, ready: dict[str, Any], tmp_path: Path) -> None:
    compute(ready, "open('data.txt', 'a').write('43')")
    there = tmp_path / "home.zip"
    broker.run("download", "mine", "--to", str(there))
    with zipfile.ZipFile(there) as found:
        (data,) = (name for name in found.namelist() if name.endswith("data.txt"))
        assert found.read(data) == b"4243"
    kept = there.read_bytes()
    assert "is there already" in broker.run("download", "mine", "--to", str(there), code=1).stderr
    assert there.read_bytes() == kept
    before = json.loads(broker.run("list", "--json").stdout)["deadline_at"]
    refused = broker.run("extend", "mine", "700", code=1).stderr
    assert "No session there lasts longer" in refused
    assert json.loads(broker.run("list", "--json").stdout)["deadline_at"] == before
    broker.run("stop", "mine")
    gone = tmp_path / "gone.zip"
    assert "its files went with it" in broker.run("download", "mine", "--to", str(gone), code=1).stderr
    assert not gone.exists()


def test_a_shorter_session_is_extended_and_a_size_is_chosen_by_the_command_line(broker: Broker, repos: Repos) -> None:
    url, make = repos
    make("app", PLAIN_APP)
    refused = broker.run("launch", f"{url}/app", "--size", "huge", "--json", code=1)
    assert "There are: small, medium, large." in refused.stderr
    broker.launch(f"{url}/app", "--name", "short", "--hours", "1", "--size", "small")
    found = json.loads(broker.run("list", "--json").stdout)
    assert (found["cpu"], found["memory_mb"]) == (1, 2048)
    assert "may now last until" in broker.run("extend", "short", "0.5").stderr
    assert json.loads(broker.run("list", "--json").stdout)["deadline_at"] > found["deadline_at"]


def test_nobody_else_gets_it_and_after_the_end_that_is_said(broker: Broker, ready: dict[str, Any]) -> None:
    stranger = httpx.get(address(broker, ready), headers={"Authorization": "Bearer somebody-else"})
    assert stranger.status_code == 401
    assert httpx.get(address(broker, ready)).status_code == 401
    assert broker.api("GET", "/api/launches/aaaaaaaaaaaa/archive").status_code == 404
    with downloading(broker, ready, broker.address["key"]) as own:
        assert own.status_code == 200
    broker.run("stop", ready["launch"])
    gone = broker.api("GET", f"/api/launches/{ready['launch']}/archive")
    assert (gone.status_code, gone.json()["reason"]) == (410, "files_gone")
    assert "has ended" in gone.json()["detail"]


def test_a_stop_meanwhile_breaks_it_off_so_that_nobody_takes_it_for_whole(
    broker: Broker, ready: dict[str, Any]
) -> None:
    compute(ready, "import os; open('large.bin', 'wb').write(os.urandom(50_000_000))")
    with downloading(broker, ready) as answer:
        pieces = answer.iter_raw(1000)
        next(pieces)
        broker.api("DELETE", f"/api/launches/{ready['launch']}")
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in pieces:
                pass
    until(lambda: "was broken off" in broker.run("logs", ready["launch"]).stdout, seconds=20)
    until(lambda: broker.left() == [], seconds=30)


def test_a_download_counts_as_use_of_the_session(
    start_broker: Callable[..., Broker], built_before: dict[str, str], repos: Repos
) -> None:
    """Of an app nothing else is known than what passes."""
    broker, (url, make) = start_broker(**built_before, ANYBINDER_HEARTBEAT_SECONDS="0.5"), repos
    make("app", PLAIN_APP)
    ready = broker.launch(f"{url}/app")

    def used_at() -> str:
        return broker.api("GET", f"/api/launches/{ready['launch']}").json()["last_activity_at"]

    before = used_at()
    with downloading(broker, ready) as answer:
        assert zipfile.ZipFile(io.BytesIO(answer.read())).testzip() is None
    until(lambda: used_at() > before, seconds=20)


def test_what_is_too_much_is_said_in_a_sentence(start_broker: Callable[..., Broker], repos: Repos) -> None:
    broker = start_broker(ANYBINDER_DOWNLOAD_MEGABYTES="1")
    url, make = repos
    make("stars", NOTEBOOKS)
    ready = broker.launch(f"{url}/stars")
    compute(ready, "open('large.bin', 'wb').write(b'x' * 1_100_000)")
    refused = broker.api("GET", f"/api/launches/{ready['launch']}/archive")
    assert (refused.status_code, refused.json()["reason"]) == (413, "download_too_large")
    assert "1 MB" in refused.json()["detail"]
    assert json.loads(broker.run("list", "--json").stdout)["state"] == "ready"
