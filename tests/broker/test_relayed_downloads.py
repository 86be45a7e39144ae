"""The files of a session at another hub: passed on from an Anybinder, and said to be there where it is none."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient

from broker import app, launches
from broker.models import Launch, State
from tests.broker.conftest import Bench
from tests.broker.listening import Listening
from tests.doubles.binderhub_double import BUILT, BinderHubDouble
from tests.waiting import until

HERE = "http://localhost:8000"
NAME = "abcdefghijkl"
ARCHIVE = f"/api/launches/{NAME}/archive"
ZIP = {"Content-Type": "application/zip"}


@pytest.fixture
def hub() -> Iterator[BinderHubDouble]:
    with BinderHubDouble() as double:
        yield double


@pytest.fixture
def bench(make_bench: Callable[..., Bench], hub: BinderHubDouble) -> Iterator[Bench]:
    made = make_bench(peers=[{"name": "away", "title": "Away", "url": hub.url}], download_megabytes=1)
    with Listening(made.at):
        yield made


@pytest.fixture
def client(bench: Bench) -> Iterator[TestClient]:
    made = app.create(bench.at)
    headers = {"Authorization": f"Bearer {made.state.door.bearer}"}
    with TestClient(made, base_url=HERE, headers=headers, follow_redirects=False) as each:
        yield each


def ready(bench: Bench, hub: BinderHubDouble, *, anybinder: bool = True) -> Launch:
    """A session there."""
    if anybinder:
        way_in = {"phase": "ready", "url": f"{hub.url}/s/{NAME}/", "token": "secret-there", "launch": NAME}
        hub.lines, hub.launches = [*BUILT[:5], way_in], {NAME: "ready"}
    launch = bench.request(backend="away")
    return until(lambda: (found := bench.advance(launch)).runs and found, seconds=20, what="it is ready there")


def packed(size: int = 100) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as made:
        made.writestr("work/index.ipynb", b"x" * size)
    return held.getvalue()


def test_what_another_anybinder_packs_is_passed_on(bench: Bench, hub: BinderHubDouble, client: TestClient) -> None:
    launch = ready(bench, hub)
    hub.answers[ARCHIVE] = (200, ZIP, packed())
    taken = client.get(f"/launches/{launch.id}/download")
    assert taken.status_code == 200
    assert taken.headers["content-disposition"].startswith('attachment; filename="demo-')
    assert zipfile.ZipFile(io.BytesIO(taken.content)).namelist() == ["work/index.ipynb"]
    assert hub.shown(ARCHIVE) == ["Bearer secret-there"]
    assert "were downloaded" in " ".join(bench.said(launch))
    assert f'href="/launches/{launch.id}/download"' in client.get(f"/launches/{launch.id}").text
    assert f'href="/launches/{launch.id}/download"' in client.get("/sessions").text


def test_a_binderhub_packs_nothing_and_its_page_says_how_else(
    bench: Bench, hub: BinderHubDouble, client: TestClient
) -> None:
    launch = ready(bench, hub, anybinder=False)
    page = client.get(f"/launches/{launch.id}").text
    assert "How to download your work" in page
    assert "Its files are at Away, so they are downloaded there." in page
    assert "/download" not in page
    assert f'href="/launches/{launch.id}#keep"' in client.get("/sessions").text
    refused = client.get(f"/api/launches/{launch.id}/archive")
    assert (refused.status_code, refused.json()["reason"]) == (409, "cannot_download")


@pytest.mark.parametrize(
    ("status", "kind", "here"),
    [
        (404, "application/json", 409),
        (302, "application/zip", 409),
        (200, "text/html", 409),
        (413, "application/json", 413),
        (503, "application/json", 503),
    ],
)
def test_what_is_no_zip_is_not_passed_on_nor_are_its_words(
    bench: Bench, hub: BinderHubDouble, client: TestClient, status: int, kind: str, here: int
) -> None:
    launch = ready(bench, hub)
    hub.answers[ARCHIVE] = (status, {"Content-Type": kind, "Location": "http://elsewhere.invalid/"}, b"<b>password</b>")
    refused = client.get(f"/api/launches/{launch.id}/archive")
    assert refused.status_code == here
    assert "password" not in refused.text


def test_one_without_end_and_one_that_breaks_off_are_no_whole_ones(
    bench: Bench, hub: BinderHubDouble, client: TestClient
) -> None:
    launch = ready(bench, hub)
    for body in (packed(2_000_000), b"5\r\nhello\r\n"):
        raw = {**ZIP, "Transfer-Encoding": "chunked", "Connection": "close"} if body.startswith(b"5") else ZIP
        hub.answers[ARCHIVE] = (200, raw, body)
        taken = client.get(f"/api/launches/{launch.id}/archive")
        with pytest.raises(zipfile.BadZipFile):
            zipfile.ZipFile(io.BytesIO(taken.content))
    assert " ".join(bench.said(launch)).count("was broken off") == 2


def test_after_its_end_there_is_nothing(bench: Bench, hub: BinderHubDouble, client: TestClient) -> None:
    launch = ready(bench, hub)
    launches.stop(bench.at, launch.id)
    assert client.get(f"/api/launches/{launch.id}/archive").status_code == 410
    assert bench.until_stopped(launch).state is State.STOPPED
