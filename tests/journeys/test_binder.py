"""Binder's clients over a real broker: many at once, over a bad line, and from a page on another origin."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import websockets.sync.client

from broker import db, models, service, threats
from tests.journeys.conftest import BUILD_SECONDS, Broker, Start
from tests.journeys.test_launch import NOTEBOOKS, PLAIN_APP
from tests.waiting import until

Repos = tuple[str, Callable[[str, dict[str, Any]], str]]
CLIENTS, SEATS = 100, 8
LOCAL = {"name": "local", "provider": "local", "title": "This computer"}
BOOK = "https://book.example"


class Reader:
    """A client of `/build` on a bad line: it loses its connection again and again, and comes back with the last id."""

    def __init__(self, client: httpx.AsyncClient, path: str, seed: int) -> None:
        self._client, self._path = client, path
        self._chance = random.Random(seed)
        self.ids: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.cuts = 0

    async def run(self) -> None:
        """Until the stream is told to have ended, whatever happens to the broker meanwhile."""
        while await self._again():
            self.cuts += 1

    async def _again(self) -> bool:
        try:
            return await self._connect()
        except httpx.TransportError:
            await asyncio.sleep(0.1)
            return True

    async def _connect(self) -> bool:
        """One connection; False once there is nothing to come back for."""
        last = {"Last-Event-ID": self.ids[-1]} if self.ids else {}
        lines = self._chance.randint(1, 4) if self._chance.random() < 0.8 else 1_000_000
        async with self._client.stream("GET", self._path, headers=last) as answer:
            if answer.status_code == 204:
                return False
            assert answer.status_code == 200
            arrived = ""
            async for text in answer.aiter_text():
                arrived += text
                while lines and "\n\n" in arrived:
                    block, _, arrived = arrived.partition("\n\n")
                    lines -= self._take(block)
                if not lines:
                    break  # cut, with whatever was on its way
        return True

    def _take(self, block: str) -> int:
        if not block.startswith("id: "):
            assert block == ":keepalive"
            return 0
        head, _, body = block.partition("\n")
        self.ids.append(head.removeprefix("id: "))
        self.events.append(json.loads(body.removeprefix("data: ")))
        return 1

    @property
    def launch(self) -> str:
        return self.ids[0].partition(".")[0]


def agreed(broker: Broker, repo: str, commit: str) -> None:
    """The person has agreed to run this commit as themselves."""
    table = db.Database(f"sqlite:///{broker.home / 'anybinder.sqlite'}")
    with table.transaction() as session:
        everything = threats.written(threats.EVERYTHING)
        row = models.Consent(person="local", repo_url=repo, commit=commit, threats=everything, at=service.utcnow())
        session.merge(row)
    table.dispose()


def rows(broker: Broker, query: str) -> list[Any]:
    with sqlite3.connect(broker.home / "anybinder.sqlite") as table:
        return table.execute(query).fetchall()


@pytest.mark.timeout(420)
def test_a_hundred_builds_of_one_commit_over_bad_lines(start_broker: Start, repos: Repos, tmp_path: Path) -> None:
    """One build; a session or a place in the queue each; no launch doubled, no line lost or told twice."""
    broker = start_broker(
        ANYBINDER_BINDER_BACKEND="local", ANYBINDER_BACKENDS=json.dumps([{**LOCAL, "max_sessions": SEATS}])
    )
    url, make = repos
    builds = tmp_path / "builds"
    app = {**PLAIN_APP, "postBuild": f"#!/bin/sh\necho once >> {builds}\n"}
    agreed(broker, f"{url}/app", make("app", app))
    readers = asyncio.run(_read_all(broker, f"/build/git/{quote(f'{url}/app', safe='')}/HEAD"))

    launched = [name for (name,) in rows(broker, "select id from launches")]
    assert Counter(reader.launch for reader in readers) == Counter(launched)
    assert len(launched) == CLIENTS
    assert sum(reader.cuts for reader in readers) > CLIENTS
    assert Counter(reader.events[-1]["phase"] for reader in readers) == {"ready": CLIENTS}
    for reader in readers:
        told = broker.api("GET", f"/api/launches/{reader.launch}/events", headers={"Accept": "application/json"}).json()
        whole = ["Waiting for build to start...", *(line["message"] for line in told)][: len(reader.events) - 1]
        assert [event["message"].removesuffix("\n") for event in reader.events[:-1]] == whole
        assert [each.split(".")[1] for each in reader.ids] == [*map(str, range(len(whole))), "end"]
    assert builds.read_text() == "once\n"
    assert rows(broker, "select count(*) from events where message like '%waiting for a free%'") > [(0,)]
    until(lambda: not rows(broker, "select 1 from launches where state != 'stopped'"), seconds=60, what=broker.log())


async def _read_all(broker: Broker, path: str) -> list[Reader]:
    at = broker.address
    headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {at['key']}"}
    limits = httpx.Limits(max_connections=2 * CLIENTS)
    base = f"http://{at['host']}:{at['port']}"
    async with httpx.AsyncClient(
        base_url=base, headers=headers, limits=limits, timeout=None, trust_env=False
    ) as client:
        readers = [Reader(client, path, seed) for seed in range(CLIENTS)]
        async with asyncio.timeout(360):
            await asyncio.gather(*(_use(client, reader) for reader in readers))
    return readers


async def _use(client: httpx.AsyncClient, reader: Reader) -> None:
    """Read to the end, then give the place to the next: with the session's own token, as a page would."""
    await reader.run()
    ready = reader.events[-1]
    assert ready["phase"] == "ready", ready
    shown = {"Authorization": f"Bearer {ready['token']}"}
    (await client.delete(f"/api/launches/{ready['launch']}", headers=shown)).raise_for_status()


@pytest.mark.timeout(BUILD_SECONDS + 60)
def test_a_stream_survives_the_brokers_death(start_broker: Start, repos: Repos, tmp_path: Path) -> None:
    """Killed in the middle of a build: the stream goes on with the next broker, nothing is launched or told twice."""
    broker, (url, make) = start_broker(ANYBINDER_BINDER_BACKEND="local"), repos
    go = tmp_path / "go"
    waits = f"#!/bin/sh\necho held; while [ ! -e {go} ]; do sleep 0.1; done\n"
    agreed(broker, f"{url}/app", make("app", {**PLAIN_APP, "postBuild": waits}))
    at = broker.address

    def kill_and_go_on() -> None:
        until(lambda: rows(broker, "select 1 from events where message like '%held%'"), seconds=200, what=broker.log())
        broker.kill(broker.processes[0])
        broker.start("up", "--no-browser", "--port", str(at["port"]))
        go.touch()

    async def read() -> Reader:
        async with httpx.AsyncClient(
            base_url=f"http://{at['host']}:{at['port']}", timeout=None, trust_env=False
        ) as client:
            client.headers = httpx.Headers({"Accept": "text/event-stream", "Authorization": f"Bearer {at['key']}"})
            reader = Reader(client, f"/build/git/{quote(f'{url}/app', safe='')}/HEAD", seed=1)
            await asyncio.gather(reader.run(), asyncio.to_thread(kill_and_go_on))
        return reader

    reader = asyncio.run(read())
    assert reader.events[-1]["phase"] == "ready", reader.events
    assert rows(broker, "select id from launches") == [(reader.launch,)]
    numbers = [each.split(".")[1] for each in reader.ids]
    assert numbers == [*map(str, range(len(numbers) - 1)), "end"]


@pytest.mark.timeout(BUILD_SECONDS + 60)
def test_a_page_elsewhere_runs_a_cell_with_the_token(start_broker: Start, repos: Repos) -> None:
    """Thebe's way, with a real Jupyter: preflights, its API and a kernel's WebSocket from a foreign origin."""
    broker, (url, make) = start_broker(ANYBINDER_CORS_ALLOW_ORIGIN="*"), repos
    make("notebooks", NOTEBOOKS)
    ready = broker.launch(f"{url}/notebooks")
    at = httpx.URL(ready["browser_url"])
    token, port = ready["token"], broker.address["port"]
    page = {"Host": at.netloc.decode(), "Origin": BOOK, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    base = f"http://127.0.0.1:{port}"

    def ask(method: str, path: str, **told: Any) -> httpx.Response:
        headers = {**page, **told.pop("headers", {})}
        return httpx.request(method, f"{base}{path}", headers=headers, timeout=30, trust_env=False, **told)

    preflight = ask("OPTIONS", "/api/kernels", headers={"Access-Control-Request-Method": "POST"})
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, "*")
    shown = {"Authorization": f"token {token}"}
    kernel = ask("POST", "/api/kernels", headers=shown, json={"name": "python3"})
    assert (kernel.status_code, kernel.headers["access-control-allow-origin"]) == (201, "*"), kernel.text
    listed = ask("GET", f"/api/kernels?token={token}")
    assert [one["id"] for one in listed.json()] == [kernel.json()["id"]]
    assert ask("GET", "/api/kernels").status_code == 403
    assert "42" in _execute(page, port, f"/api/kernels/{kernel.json()['id']}/channels?token={token}", "print(6 * 7)")


def _execute(page: dict[str, str], port: int, path: str, code: str) -> str:
    """What this prints, over a WebSocket as a browser opens it from another page: it can set no header."""
    told = {name: value for name, value in page.items() if name not in ("Host", "Origin")}
    header = {
        "msg_id": "m1",
        "msg_type": "execute_request",
        "username": "",
        "session": "s1",
        "version": "5.3",
        "date": "",
    }
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    message = {"header": header, "parent_header": {}, "metadata": {}, "channel": "shell", "content": content}
    printed = ""
    with websockets.sync.client.connect(
        f"ws://{page['Host']}{path}", origin=BOOK, additional_headers=told, proxy=None,  # type: ignore[arg-type]
        sock=_connected(port), max_size=None,
    ) as socket:  # fmt: skip
        socket.send(json.dumps(message))
        while True:
            said = json.loads(socket.recv(timeout=60))
            if said["msg_type"] == "stream":
                printed += said["content"]["text"]
            if said["msg_type"] == "status" and said["content"]["execution_state"] == "idle" and printed:
                return printed


def _connected(port: int) -> Any:
    import socket

    return socket.create_connection(("127.0.0.1", port), 10)
