"""Whether the public address leads to this very broker: asked over real TLS, with everything that can stand in the way."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from fastapi.testclient import TestClient

from broker import app, probe, service, settings
from tests.broker.conftest import Bench
from tests.waiting import until

AUTHORITY = trustme.CA()


class Door:
    """What answers at the public address: this broker, unless `answers` says otherwise for a path."""

    def __init__(self, at: service.Service) -> None:
        self.answers: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self.asked: list[str] = []
        self.hangs = threading.Event()
        self.hangs.set()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign,assignment]
        self.url = f"https://localhost:{self.http.server_port}"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        AUTHORITY.issue_cert("localhost").configure_cert(context)
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True, do_handshake_on_connect=False)
        chosen = at.settings.model_copy(update={"public_url": self.url, "session_domain": "sessions.localhost"})
        self.at = replace(at, settings=chosen, agent_url=self.url)
        self.broker = TestClient(app.create(self.at), base_url=self.url)
        self._thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.hangs.set()
        self.http.shutdown()
        self.http.server_close()
        self._thread.join()

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        self.asked.append(path)
        self.hangs.wait(20)
        for start, said in self.answers.items():
            if path.startswith(start):
                return said
        found = self.broker.get(path)
        return found.status_code, found.content, {}

    def _handler(door) -> type[BaseHTTPRequestHandler]:  # noqa: N805  the handler has a self of its own
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body, headers = door.answer(self.path)
                self.send_response(status)
                for name, value in {"content-length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                return

        return Handler


@pytest.fixture
def door(bench: Bench) -> Iterator[Door]:
    made = Door(bench.at)
    yield made
    made.close()


@pytest.fixture(scope="module")
def tls() -> ssl.SSLContext:
    """What a computer believes that knows our authority."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def at_address(bench: Bench, address: str) -> service.Service:
    return replace(bench.at, settings=bench.at.settings.model_copy(update={"public_url": address}), agent_url=address)


def test_a_broker_that_is_reached_is_believed_for_minutes(door: Door, tls: ssl.SSLContext, bench: Bench) -> None:
    assert probe.look(door.at, tls=tls).trouble is None
    assert [path.rpartition("/")[0] for path in door.asked] == [probe.PATH.rstrip("/"), "/.well-known", "/.well-known"]
    assert probe.refusal(door.at) is None
    bench.clock.move(minutes=4)
    assert probe.refusal(door.at) is None
    assert len(door.asked) == 3


def test_without_an_address_it_says_which_setting(bench: Bench) -> None:
    assert "ANYBINDER_PUBLIC_URL" in str(probe.refusal(bench.at))
    assert "ANYBINDER_PUBLIC_URL" in str(probe.look(bench.at).trouble)


def test_a_name_that_nobody_knows_is_told_from_silence(bench: Bench) -> None:
    assert "The name of hub.invalid is not found" in str(probe.look(at_address(bench, "https://hub.invalid")).trouble)
    port = settings.free_port()
    silent = probe.look(at_address(bench, f"https://localhost:{port}")).trouble
    assert f"Nothing answers at https://localhost:{port}" in str(silent)


def test_a_certificate_of_nobodys_is_refused(door: Door) -> None:
    assert f"The certificate of {door.url[8:]} is refused" in str(probe.look(door.at).trouble)
    assert door.asked == []


def test_a_certificate_for_another_name_is_refused(door: Door, tls: ssl.SSLContext, bench: Bench) -> None:
    other = at_address(bench, door.url.replace("localhost", "127.0.0.1"))
    assert "is refused" in str(probe.look(other, tls=tls).trouble)


@pytest.mark.parametrize(
    "said", [(200, b"Welcome to nginx", {}), (404, b"", {}), (502, b"<html>", {}), (200, b"0" * 64, {})]
)
def test_somebody_else_who_answers_is_not_us(door: Door, tls: ssl.SSLContext, said: Any) -> None:
    door.answers[probe.PATH] = said
    assert "Something else than this broker answers" in str(probe.look(door.at, tls=tls).trouble)


def test_another_broker_cannot_answer_for_us(
    door: Door, tls: ssl.SSLContext, home: Path, make_bench: Callable[..., Bench]
) -> None:
    other = service.build(settings.Settings(home=home / "other"))
    door.broker = TestClient(app.create(replace(other, settings=door.at.settings)), base_url=door.url)
    try:
        assert "Something else than this broker" in str(probe.look(door.at, tls=tls).trouble)
    finally:
        other.close()


def test_it_is_not_led_elsewhere(door: Door, tls: ssl.SSLContext) -> None:
    door.answers[probe.PATH] = (301, b"", {"location": f"{door.url}/elsewhere"})
    assert "sends visitors on to another address" in str(probe.look(door.at, tls=tls).trouble)
    assert len(door.asked) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/.well-known/openid-configuration", b'{"issuer": "https://other.example"}'),
        ("/.well-known/openid-configuration", b"[]"),
        ("/.well-known/jwks.json", b'{"keys": [{"kid": "an-old-one"}]}'),
        ("/.well-known/jwks.json", b'{"keys": ["?"]}'),
        ("/.well-known/jwks.json", b"not json"),
    ],
)
def test_metadata_that_is_not_ours_would_be_believed_by_no_cloud(
    door: Door, tls: ssl.SSLContext, path: str, body: bytes
) -> None:
    door.answers[path] = (200, body, {})
    assert f"{path} is not what this broker answers" in str(probe.look(door.at, tls=tls).trouble)


def test_an_answer_without_end_is_cut_off(door: Door, tls: ssl.SSLContext) -> None:
    door.answers[probe.PATH] = (200, b"x" * (5 * probe.LONGEST), {})
    assert "Something else" in str(probe.look(door.at, tls=tls).trouble)


def test_silence_is_given_up(door: Door, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "SECONDS", 0.3)
    door.hangs.clear()
    assert "nothing answered within 0.3 s" in str(probe.look(door.at, tls=tls).trouble)


def test_what_was_found_is_looked_at_again_in_the_background(door: Door, tls: ssl.SSLContext, bench: Bench) -> None:
    probe.look(door.at, tls=tls)
    bench.clock.move(minutes=6)
    assert probe.refusal(door.at) is None  # what was known, while somebody looks: without the authority, it is refused
    until(lambda: door.at.probes[door.url].trouble, seconds=10)
    assert "certificate" in str(probe.refusal(door.at))


def test_trouble_is_looked_at_again_soon(door: Door, bench: Bench) -> None:
    first = probe.look(door.at)
    assert first.trouble is not None
    bench.clock.move(seconds=31)
    assert probe.refusal(door.at) == first.trouble
    until(lambda: door.at.probes[door.url].at > first.at, seconds=10)


def test_a_proof_is_for_what_looks_like_our_question_only(door: Door) -> None:
    good = door.broker.get(f"{probe.PATH}{'a' * 26}")
    assert (good.status_code, good.headers["cache-control"]) == (200, "no-store")
    assert good.text == probe.proof(door.at, "a" * 26) != probe.proof(door.at, "b" * 26)
    for nonce in ("a" * 25, "A" * 26, "a" * 27, "a" * 25 + "%0A"):
        assert door.broker.get(f"{probe.PATH}{nonce}").status_code == 404
