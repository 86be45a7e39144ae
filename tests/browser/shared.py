"""One broker for all tests of a file, for what needs no broker of its own: `from tests.browser.shared import world`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.doubles import git_repos
from tests.doubles.git_server import GitServer
from tests.journeys.conftest import Broker
from tests.waiting import until

READY_SECONDS = 90  # a cold JupyterLab on a busy computer

# An app that needs nothing installed: a page that greets, and one that sets cookies it should not.
APP = {
    "start": "#!/bin/sh\nexec python app.py\n",
    "app.py": (
        "import http.server, os, socketserver\n"
        "class App(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        body = b'<!doctype html><title>app</title><h1>hello from ' + self.path.split('?')[0].encode() + b'</h1>'\n"
        "        self.send_response(200)\n"
        "        self.send_header('content-type', 'text/html')\n"
        "        self.send_header('content-length', str(len(body)))\n"
        "        if self.path == '/cookies':\n"
        "            for name in ('anybinder', 'anybinder-session'):\n"
        "                self.send_header('set-cookie', name + '=x; Domain=localhost; Path=/')\n"
        "                self.send_header('set-cookie', name + '=x; Path=/')\n"
        "        self.end_headers()\n"
        "        self.wfile.write(body)\n"
        "    def log_message(self, *words): pass\n"
        "class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): pass\n"
        "Server(os.environ['ANYBINDER_SOCKET'], App).serve_forever()\n"
    ),
}
FAILING = {"postBuild": "#!/bin/sh\nfor i in $(seq 40); do echo line $i of the build; done\nexit 1\n"}


class World:
    """One broker with its repositories, and people who are signed in to it."""

    def __init__(self, broker: Broker, browser: Browser, git: GitServer) -> None:
        self.broker, self.browser, self.git = broker, browser, git
        self.port = broker.address["port"]
        self.url = f"http://localhost:{self.port}"

    def repository(self, name: str, files: dict[str, Any]) -> str:
        """Its address. Made when it is first asked for."""
        if not (self.git.root / name).exists():
            git_repos.make_repo(self.git.root, name, files)
        return f"{self.git.url}/{name}"

    @contextmanager
    def visitor(self, **options: Any) -> Iterator[BrowserContext]:
        """A browser of somebody who is not signed in."""
        with self.browser.new_context(**options) as context:
            context.set_default_timeout(20_000)
            yield context

    @contextmanager
    def person(self, **options: Any) -> Iterator[Page]:
        """The page of the one local person, signed in."""
        with self.visitor(**options) as context:
            page = context.new_page()
            page.goto(f"{self.url}/?key={self.key()}")
            yield page

    def key(self) -> str:
        return self.broker.api("POST", "/api/keys").json()["key"]

    def launches(self) -> list[dict[str, Any]]:
        return self.broker.api("GET", "/api/launches").json()

    def launch(self, repo: str, **wish: Any) -> dict[str, Any]:
        """Launch it by the JSON interface, agreed to."""
        answer = self.broker.api("POST", "/api/launches", json={"repo": repo, "consent": True, **wish})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def ready(self, repo: str, **wish: Any) -> dict[str, Any]:
        """The same, once it is ready."""
        launch = self.launch(repo, **wish)
        return until(lambda: self.reached(launch["id"], "ready"), seconds=READY_SECONDS, what=self.broker.log())

    def reached(self, launch_id: str, state: str) -> dict[str, Any] | None:
        found = self.broker.api("GET", f"/api/launches/{launch_id}").json()
        assert state == "stopped" or found["state"] != "stopped", found
        return found if found["state"] == state else None

    def stop(self, launch_id: str) -> None:
        """End it, and see it gone."""
        self.broker.api("DELETE", f"/api/launches/{launch_id}")
        until(lambda: self.reached(launch_id, "stopped"), seconds=30, what=self.broker.log())


@pytest.fixture(scope="module")
def world(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The broker of this file."""
    with running(browser, tmp_path_factory.mktemp("browser"), {}) as made:
        yield made


@contextmanager
def running(browser: Browser, folder: Path, environment: dict[str, str]) -> Iterator[World]:
    """A broker with these settings, and a server of repositories, in this empty folder."""
    (folder / "repos").mkdir()
    broker = Broker(folder / "home", environment)
    with GitServer(folder / "repos") as git:
        broker.start("up", "--no-browser", "--port", "0")
        try:
            broker.wait()
            yield World(broker, browser, git)
        finally:
            broker.close()


class Blank(BaseHTTPRequestHandler):
    """A page of somebody else's, with nothing in it yet."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>elsewhere</title><body>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[int]:
    """The port of somebody else's web server on this computer."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Blank)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()
