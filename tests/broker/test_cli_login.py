"""The command line against a hub: logging in and out of a really running broker, and whom a token is sent to."""

from __future__ import annotations

import json
import os
import re
import ssl
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import trustme
from hypothesis import strategies as st

from broker import client, hubs
from tests.browser.shared import APP
from tests.doubles import git_repos
from tests.doubles.git_server import GitServer
from tests.journeys.conftest import COMMAND, Broker

SECONDS = 60


class Laptop:
    """A command line with a state folder of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "ANYBINDER_HOME": str(home), "BROWSER": "true"}

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [*COMMAND, *words], env=self.environment, capture_output=True, text=True, timeout=SECONDS, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert ended.returncode == code, (words, ended.stdout, ended.stderr)
        return ended

    def login(self, url: str, decide: Callable[[str], None], code: int = 0) -> str:
        """Log in, with somebody who decides on the code that it shows; what it said."""
        words = [*COMMAND, "login", url, "--no-browser"]
        with subprocess.Popen(words, env=self.environment, stderr=subprocess.PIPE, text=True) as process:
            said = ""
            assert process.stderr is not None
            for line in process.stderr:
                said += line
                if found := re.search(r"Type {2}([A-Z]{4}-[A-Z]{4})", line):
                    decide(found[1])
            assert process.wait(SECONDS) == code, said
        return said

    @property
    def hubs(self) -> list[dict[str, Any]]:
        return list(json.loads((self.home / "hubs.json").read_text()))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    made = Broker(tmp_path_factory.mktemp("hub") / "home", {})
    made.start("up", "--no-browser", "--port", "0")
    try:
        made.wait()
        yield made
    finally:
        made.close()


@pytest.fixture
def hub(broker: Broker) -> str:
    return f"http://localhost:{broker.address['port']}"


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path / "laptop")


def deciding(broker: Broker, answer: str) -> Callable[[str], None]:
    def decide(code: str) -> None:
        broker.api("POST", "/device/decide", data={"code": code, "let_in": answer}).raise_for_status()

    return decide


# --- a hub that runs ------------------------------------------------------------------------------------------------


def test_a_command_line_that_was_let_in_works_there_until_it_logs_out(broker: Broker, hub: str, laptop: Laptop) -> None:
    said = laptop.login(hub, deciding(broker, "yes"))
    assert f"Open  {hub}/device" in said
    assert f"Logged in to {hub} as you, for 30 days" in said
    (kept,) = laptop.hubs
    assert (kept["url"], stat.S_IMODE((laptop.home / "hubs.json").stat().st_mode)) == (hub, 0o600)
    assert stat.S_IMODE(laptop.home.stat().st_mode) == 0o700
    assert laptop.run("whoami").stdout == f"you at {hub}\n"
    listed = laptop.run("list")
    assert f"At {hub}." in listed.stderr
    assert "local" in laptop.run("backends", "--hub", hub).stdout
    assert kept["token_id"] in laptop.run("tokens").stdout
    assert kept["token"] not in said + listed.stdout + listed.stderr
    assert kept["token"] not in broker.log()

    assert f"Logged out of {hub}." in laptop.run("logout").stderr
    assert laptop.hubs == []
    refused = broker.api("GET", "/api/me", headers={"Authorization": f"Bearer {kept['token']}"})
    assert refused.status_code == 401
    assert "No broker is running here" in laptop.run("list", code=1).stderr


def test_one_that_is_refused_keeps_nothing(broker: Broker, hub: str, laptop: Laptop) -> None:
    said = laptop.login(hub, deciding(broker, "no"), code=1)
    assert "refused" in said
    assert not (laptop.home / "hubs.json").exists()


def test_logging_in_again_leaves_one_token(broker: Broker, hub: str, laptop: Laptop) -> None:
    laptop.login(hub, deciding(broker, "yes"))
    first = laptop.hubs[0]["token_id"]
    laptop.login(hub, deciding(broker, "yes"))
    good = [one["id"] for one in broker.api("GET", "/api/tokens").json()]
    assert [one["token_id"] for one in laptop.hubs] == [one for one in good if one != first]
    assert first not in good
    laptop.run("logout", hub)


def test_a_token_that_was_revoked_there_is_said(broker: Broker, hub: str, laptop: Laptop) -> None:
    laptop.login(hub, deciding(broker, "yes"))
    broker.api("DELETE", f"/api/tokens/{laptop.hubs[0]['token_id']}").raise_for_status()
    assert "anybinder login" in laptop.run("list", code=1).stderr
    laptop.run("logout")


def test_a_launch_goes_to_the_hub_and_ends_there(broker: Broker, hub: str, laptop: Laptop, tmp_path: Path) -> None:
    laptop.login(hub, deciding(broker, "yes"))
    git_repos.make_repo(tmp_path / "repos", "app", APP)
    with GitServer(tmp_path / "repos") as git:
        launched = laptop.run("launch", f"{git.url}/app", "--hub", hub, "--json", "--name", "there")
        ready = json.loads(launched.stdout.splitlines()[-1])
        assert ready["phase"] == "ready"
        assert [one["name"] for one in broker.api("GET", "/api/launches?running=true").json()] == ["there"]
        assert "there" in laptop.run("list").stdout
        assert laptop.run("logs", "there").stdout
        laptop.run("stop", "there")
    assert broker.api("GET", "/api/launches?running=true").json() == []
    assert not (laptop.home / "anybinder.sqlite").exists()  # no broker was started here
    laptop.run("logout")


def test_the_broker_of_this_computer_comes_first(broker: Broker, hub: str) -> None:
    here = Laptop(broker.home)
    hubs.keep(broker.home, hubs.Hub(url="https://hub.example", token="abt_x", token_id="x"))
    try:
        assert here.run("whoami").stdout == f"you at {hub}, this computer\n"
        assert "At https" not in here.run("list").stderr
    finally:
        hubs.forget(broker.home, "https://hub.example")


def test_local_is_this_computer_whatever_one_is_logged_in_to(laptop: Laptop) -> None:
    hubs.keep(laptop.home, hubs.Hub(url="https://hub.example", token="abt_x", token_id="x"))
    assert "No broker is running here" in laptop.run("list", "--hub", "local", code=1).stderr


def test_a_hub_one_is_not_logged_in_to_is_said(laptop: Laptop) -> None:
    assert "anybinder login https://hub.example" in laptop.run("list", "--hub", "hub.example", code=1).stderr


def test_logging_out_of_a_hub_that_is_gone_says_what_is_left_to_do(laptop: Laptop) -> None:
    hubs.keep(laptop.home, hubs.Hub(url="http://localhost:9", token="abt_x", token_id="x"))
    assert "http://localhost:9/account" in laptop.run("logout", code=1).stderr
    assert laptop.hubs == []


# --- whom a token is sent to ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("hub.example", "https://hub.example"),
        ("https://Hub.Example/", "https://hub.example"),
        ("https://hub.example:443", "https://hub.example"),
        ("https://hub.example:8443", "https://hub.example:8443"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_is_written_in_one_way(typed: str, written: str) -> None:
    assert hubs.address(typed) == written


@pytest.mark.parametrize(
    "typed",
    ["http://hub.example", "ftp://hub.example", "https://", "", "https://me@hub.example", "https://hub.example/path",
     "https://hub.example?x=1", "https://hub.example#x", "http://localhost.evil.example", "https://hub.example:99999",
     "https://hub example", "javascript:alert(1)", "file:///etc/passwd", "http://localhost@evil.example"],
)  # fmt: skip
def test_an_address_that_a_token_must_not_go_to_is_refused(typed: str) -> None:
    with pytest.raises(hubs.BadAddress):
        hubs.address(typed)


@hypothesis.given(st.text(alphabet="htps:/@.?#[]\\ localexm01%", max_size=40))
@hypothesis.settings(deadline=None, derandomize=True, max_examples=300)
def test_whatever_is_typed_a_token_goes_by_https_or_stays_here(typed: str) -> None:
    try:
        url = hubs.address(typed)
    except hubs.BadAddress:
        return
    at = client.elsewhere(url)
    assert url.startswith("https://") or at.host in hubs.NEAR
    assert hubs.address(url) == url


class Answering(BaseHTTPRequestHandler):
    """A hub that keeps what it was shown."""

    shown: list[str]
    moved = ""

    def do_GET(self) -> None:
        self.shown.append(self.headers.get("Authorization", ""))
        body = b"{}"
        self.send_response(302 if self.moved else 200)
        if self.moved:
            self.send_header("Location", self.moved)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        return


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, list[str]]]]:
    """Hubs at an address of this computer, with or without TLS: their addresses, and what they are shown."""
    running: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(moved: str = "", tls: ssl.SSLContext | None = None) -> tuple[str, list[str]]:
        shown: list[str] = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Hub", (Answering,), {"shown": shown, "moved": moved}))
        server.daemon_threads = True
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that turns away
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        running.append((server, thread))
        return f"{'https' if tls else 'http'}://localhost:{server.server_address[1]}", shown

    yield start
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_hub_whose_certificate_is_not_trusted_is_sent_nothing(
    serve: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    url, shown = serve(tls=context)
    with pytest.raises(client.Unreachable, match="certificate"):
        client.elsewhere(url, "abt_secret").call("GET", "/api/me")
    assert shown == []
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert client.elsewhere(url, "abt_secret").call("GET", "/api/me") == {}
    assert shown == ["Bearer abt_secret"]


def test_a_certificate_of_another_name_is_none(
    serve: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("hub.example").configure_cert(context)
    url, shown = serve(tls=context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(client.Unreachable, match="certificate"):
        client.elsewhere(url, "abt_secret").call("GET", "/api/me")
    assert shown == []


def test_no_redirect_takes_a_token_elsewhere(serve: Callable[..., Any]) -> None:
    other, shown = serve()
    url, _ = serve(moved=other)
    with pytest.raises(client.Refused):
        client.elsewhere(url, "abt_secret").call("GET", "/api/me")
    assert shown == []


def test_no_repr_shows_a_token() -> None:
    hub = hubs.Hub(url="https://hub.example", token="abt_secret", token_id="x")
    assert "secret" not in repr(hub) + repr(client.elsewhere(hub.url, hub.token))


def test_the_hub_of_the_last_login_is_the_first(tmp_path: Path) -> None:
    for number in range(3):
        hubs.keep(tmp_path, hubs.Hub(url=f"https://hub{number}.example", token="t", token_id="i"))
    assert [hub.url for hub in hubs.known(tmp_path)] == [f"https://hub{number}.example" for number in (2, 1, 0)]
    (tmp_path / "hubs.json").write_text("{")
    with pytest.raises(hubs.BadAddress, match="cannot be read"):
        hubs.known(tmp_path)
