"""The agent as a process of its own, against a real HTTP server that speaks the broker's side."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker import agent
from tests.doubles.broker_double import (
    ENROLMENT_TOKEN,
    SERVER_TOKEN,
    SESSION_SECRET,
    BrokerDouble,
    ProxyDouble,
    Refused,
)
from tests.waiting import until

AGENT = Path(agent.__file__)

BUILDER = """
import json, os, sys, time
spec = json.load(open(sys.argv[1]))
for line in spec["play"]:
    if isinstance(line, str):
        print(line, flush=True)
    elif "error" in line:
        print(line["error"], file=sys.stderr, flush=True)
    elif "raw" in line:
        os.write(1, line["raw"].encode("latin-1"))
    elif "sleep" in line:
        time.sleep(line["sleep"])
    elif "keyed" in line:
        key = json.load(sys.stdin)
        print("keyed", spec["keyed"], key["origin"], "says", key["secret"], flush=True)
    elif "exit" in line:
        sys.exit(line["exit"])
    else:
        print(json.dumps(line), flush=True)
"""

SERVER = """
import http.server, json, os, socketserver, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def address_string(self): return "unix"
    def log_message(self, *_): pass
    def do_GET(self):
        path = "/" + self.path.strip("/")
        jupyter = "jupyter" in sys.argv and self.headers.get("Authorization") == "token " + os.environ["JUPYTER_TOKEN"]
        if jupyter and path == "/api/status":
            return self.answer({"started": "now"})
        if jupyter and path == "/api/kernels":
            return self.answer(json.load(open("kernels.json")) if os.path.exists("kernels.json") else [])
        if jupyter and path == "/api/terminals":
            return self.answer([])
        if path == "/quit":
            print("goodbye", flush=True)
            os._exit(3)
        if path == "/environ":
            return self.answer(dict(os.environ))
        if path.startswith("/bytes/"):
            body = b"x" * int(path[7:])
            self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
            return self.wfile.write(body)
        self.send_error(404)
    def do_POST(self):
        left, total = int(self.headers["Content-Length"]), 0
        while left:
            piece = self.rfile.read(min(left, 65536)); left -= len(piece); total += sum(piece[:1]) + len(piece)
        self.answer({"received": total})
    def answer(self, thing):
        body = json.dumps(thing).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)

class OnSocket(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
class OnPort(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True

if "port" in sys.argv:
    OnPort(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
else:
    OnSocket(os.environ["ANYBINDER_SOCKET"], Handler).serve_forever()
"""

DAEMONS = """
import os, subprocess, sys, time
# One that left our session, one that forked twice, one that forgot its environment as well.
sleep = [sys.executable, "-c", "import time; time.sleep(600)", "daemon-of-" + os.environ["ANYBINDER_INSTANCE"]]
subprocess.Popen(sleep, start_new_session=True)
for env in (None, {}):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve(sleep[0], sleep, dict(os.environ) if env is None else env)
        os._exit(0)
"""

ORPHANS = DAEMONS + SERVER


class Instance:
    """One agent process in a home of its own, and all that a test may ask of it."""

    def __init__(self, folder: Path, broker: BrokerDouble) -> None:
        self.home, self.broker = folder / "home", broker
        self.home.mkdir(parents=True)
        self.runtime = Path(tempfile.mkdtemp(prefix="ab-"))
        (folder / "builder.py").write_text(BUILDER)
        self.boot_file = folder / "BOOT.json"
        self.until = datetime.now(UTC) + timedelta(hours=2)
        self.boot: dict[str, Any] = {
            "broker": broker.url,
            "order": broker.order,
            "token": ENROLMENT_TOKEN,
            "silence_seconds": 60,
            "home": str(self.home),
            "runtime": str(self.runtime),
            "cache": str(folder / "cache"),
            "builder": [sys.executable, str(folder / "builder.py")],
        }
        self.env: dict[str, str] = {}
        self.pass_fds: tuple[int, ...] = ()
        self.log = folder / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        self.boot_file.write_text(json.dumps({"until": self.until.isoformat(), **self.boot}))
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, str(AGENT), str(self.boot_file)],
                env={**os.environ, **self.env},
                stdout=log,
                stderr=log,
                pass_fds=self.pass_fds,
            )
        self.process = self.process or process
        return process

    def exit_status(self, seconds: float = 20) -> int:
        assert self.process is not None
        return self.process.wait(timeout=seconds)

    def end(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=30)
        shutil.rmtree(self.runtime, ignore_errors=True)

    def play(self, *lines: Any) -> None:
        """What the builder will do."""
        self.broker.spec["play"] = list(lines)

    def serve(self, *arguments: str, script: str = SERVER) -> None:
        """Have the builder leave this server."""
        path = self.home.parent / "server.py"
        path.write_text(script)
        server = {
            "argv": [sys.executable, str(path), *arguments],
            "env": {"FROM_BUILDER": "yes"},
            "cwd": str(self.home),
        }
        self.play({"phase": "fetching", "message": "f"}, {"phase": "built", "message": "b", "server": server})

    def up(self) -> None:
        self.start()
        until(lambda: self.broker.status()["server"] == "up", what="the server is up")

    def workers(self) -> list[int]:
        """The agent's second process."""
        assert self.process is not None
        return [pid for pid, parent in agent.process_table().items() if parent == self.process.pid]


def running(mark: str) -> list[int]:
    """Living processes that carry this order in their environment or among their arguments."""
    found = []
    for pid in agent.process_table():
        with contextlib.suppress(OSError):
            said = Path(f"/proc/{pid}/cmdline").read_bytes() + b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
            if f"{agent.MARK}={mark}".encode() in said or f"daemon-of-{mark}".encode() in said:
                found.append(pid)
    return found


@pytest.fixture
def broker() -> Iterator[BrokerDouble]:
    double = BrokerDouble()
    yield double
    double.close()


@pytest.fixture
def instance(tmp_path: Path, broker: BrokerDouble) -> Iterator[Instance]:
    made = Instance(tmp_path, broker)
    yield made
    made.end()
    assert not running(broker.order)


# Birth and enrolment


def test_the_file_needs_nothing_but_the_standard_library_of_python_3_8():
    tree = ast.parse(AGENT.read_text(), feature_version=(3, 8))
    imported = {
        name.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    }
    imported |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names


def test_it_reads_its_boot_configuration_once_and_unlinks_it(instance, broker):
    instance.serve()
    instance.up()
    assert not instance.boot_file.exists()
    assert len(broker.enrolments) == 1
    assert int((instance.home / "pid").read_text()) == instance.process.pid


def test_a_lost_answer_is_asked_for_again_with_the_same_secret(instance, broker):
    broker.answers["/agent/enrol"] = [503, 500]
    instance.serve()
    instance.up()
    assert len(broker.enrolments) == 1
    assert broker.agent


def test_a_hung_up_enrolment_repeats_and_is_the_same_agent(instance, broker):
    broker.answers["/agent/enrol"] = [-1, -1]
    instance.serve()
    instance.up()
    assert len(broker.enrolments) == 3
    assert len(set(broker.enrolments)) == 1


def test_a_token_used_before_ends_the_agent(instance, broker):
    broker.agent = "somebody else"
    instance.start()
    assert instance.exit_status() == 3


def test_a_broker_that_cannot_prove_itself_is_not_obeyed(instance, broker):
    broker.honest = False
    instance.serve()
    instance.start()
    assert instance.exit_status() == 3
    assert not broker.reports


def test_a_broker_with_the_key_told_at_birth_is_obeyed(instance, broker):
    instance.boot["broker_key"] = broker.broker_key
    instance.serve()
    instance.up()


def test_a_broker_with_another_key_is_not_obeyed_though_it_knows_the_token(instance, broker):
    instance.boot["broker_key"] = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    instance.serve()
    instance.start()
    assert instance.exit_status() == 3
    assert not broker.reports


def test_a_signature_counts_for_its_own_key_and_words_only():
    one, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    key, signature = one.public_key().public_bytes_raw().hex(), one.sign(b"order nonce").hex()
    assert agent.signed(key, "order nonce", signature)
    assert not agent.signed(key, "order another", signature)
    assert not agent.signed(other.public_key().public_bytes_raw().hex(), "order nonce", signature)
    damaged = [
        signature[:at] + format(15 - int(signature[at], 16), "x") + signature[at + 1 :] for at in range(0, 128, 9)
    ]
    assert [
        each for each in [*damaged, "", "zz", "00" * 64, signature[:-2]] if agent.signed(key, "order nonce", each)
    ] == []


def test_what_a_machine_may_delete_itself_with_goes_through_the_pipe_and_into_no_file(instance, broker):
    near, far = os.pipe()
    broker.dead_man = {"requests": [{"method": "DELETE", "url": "https://cloud.example/1"}], "ends_at": "2027-01-01"}
    instance.boot["will"] = far
    instance.pass_fds = (far,)
    instance.serve()
    instance.up()
    os.close(far)
    with os.fdopen(near) as pipe:
        assert json.loads(pipe.readline()) == broker.dead_man
    until(lambda: broker.reports[-1]["dead_man"], what="the agent says that it holds it")
    kept = [path for path in instance.home.rglob("*") if path.is_file() and b"cloud.example" in path.read_bytes()]
    assert kept == []


BRINGER = """
import json, sys
print(json.dumps({"phase": "fetching", "message": "brings " + " ".join(sys.argv[1:])}))
if "fails" in sys.argv[0]:
    print(json.dumps({"phase": "failed", "message": "This machine cannot be made ready."}))
    sys.exit(1)
brought = {"engine": {"kind": "docker"}} if "images" in sys.argv else {}
print(json.dumps({"phase": "fetching", "message": "ready", "brought": brought}))
"""
CHOOSY = """
import json, sys
spec = json.load(open(sys.argv[1]))
told = {"phase": "failed", "message": "It asks for conda.", "needs": "containers", "brought": {"engine": {"kind": "mine"}}}
if spec["engine"]:
    told = {"phase": "built", "message": "by " + spec["engine"]["kind"], "server": spec["server"]}
print(json.dumps(told))
"""


def on_a_machine(instance, bringer="bringer.py"):
    """An agent that can have what a build needs brought."""
    folder = instance.home.parent
    (folder / bringer).write_text(BRINGER)
    instance.boot["bring"] = [sys.executable, str(folder / bringer)]


@pytest.mark.parametrize(
    ("content", "brought"),
    [({"kind": "git"}, "python git"), ({"kind": "files"}, "python"), ({"kind": "image"}, "image")],
)
def test_a_machine_is_brought_what_its_build_needs_and_no_more(instance, broker, content, brought):
    on_a_machine(instance)
    broker.spec["content"] = content
    instance.serve()
    instance.up()
    assert broker.messages("fetching")[0] == f"brings {brought}"


def test_containers_are_brought_once_the_repository_turns_out_to_need_them(instance, broker):
    on_a_machine(instance)
    instance.serve()
    broker.spec["server"] = broker.spec["play"][-1]["server"]
    (instance.home.parent / "builder.py").write_text(CHOOSY)
    instance.up()
    assert [line for line in broker.messages("fetching") if "brings" in line] == ["brings python git", "brings images"]
    assert broker.messages("built") == ["by docker"], "what a builder says of engines counts for nothing"
    assert broker.messages("failed") == []


def test_where_none_can_be_brought_that_is_the_reason(instance, broker):
    instance.serve()
    broker.spec["server"] = broker.spec["play"][-1]["server"]
    (instance.home.parent / "builder.py").write_text(CHOOSY)
    instance.start()
    assert instance.exit_status() == 1
    assert broker.messages("failed") == ["It asks for conda."]


def test_what_cannot_be_brought_ends_the_launch_with_the_reason(instance, broker):
    on_a_machine(instance, "fails.py")
    instance.serve()
    instance.start()
    assert instance.exit_status() == 1
    assert broker.messages("failed") == ["This machine cannot be made ready."]


def test_who_has_no_use_for_it_is_not_given_it(instance, broker):
    broker.dead_man = {"requests": [], "ends_at": "2027-01-01"}
    instance.serve()
    instance.up()
    assert "dead_man" not in broker.reports[-1]


def test_a_second_agent_on_the_same_home_does_nothing(instance, broker):
    instance.serve()
    instance.up()
    second = instance.start()
    assert second.wait(timeout=10) == 4
    assert instance.boot_file.exists()
    assert len(broker.enrolments) == 1
    assert instance.process.poll() is None


def test_a_home_whose_agent_has_ended_takes_no_other(instance, broker):
    broker.command = "stop"
    instance.serve()
    instance.start()
    assert instance.exit_status() == 0
    assert instance.start().wait(timeout=10) == 4


# Reports


def test_events_are_numbered_and_sent_again_until_acknowledged(instance, broker):
    broker.answers["/agent/report"] = [500, -1, 502]
    instance.play(
        *[{"phase": "building", "message": f"line {n}"} for n in range(1200)], {"phase": "failed", "message": "no"}
    )
    instance.start()
    assert instance.exit_status() == 1
    assert broker.messages() == [*[f"line {n}" for n in range(1200)], "no"]
    assert max(len(report["events"]) for report in broker.reports) <= 500


def test_lines_are_neutralised_capped_and_without_secrets(instance, broker):
    instance.play(
        {"phase": "building", "message": "\x1b[31mred\x1b[0m \x1b]0;title\x07and\x00 \x9b1m\u202eback"},
        {"phase": "building", "message": " 10%\r 50%\r100%"},
        {"phase": "building", "message": "x" * 5000},
        {"phase": "building", "message": f"token {SERVER_TOKEN} of https://ada:pw@host/x"},
        {"error": "from standard error"},
        "not JSON",
        {"phase": "failed", "message": "no"},
    )
    instance.start()
    assert instance.exit_status() == 1
    until(lambda: broker.messages("failed"))
    first, bar, long, secret = [said for said in broker.messages("building") if not said.startswith(("from", "not"))]
    assert first == "red and\ufffd \ufffd1m\ufffdback"
    assert bar == "100%"
    assert len(long) == 2000
    assert secret == "token *** of https://***@host/x"
    assert {"from standard error", "not JSON"} <= set(broker.messages())


def test_what_opens_the_repository_goes_to_the_builder_alone_and_is_forgotten_with_it(instance, broker):
    broker.key = {"origin": "https://git.example", "user": "ada", "secret": "the-secret-of-ada"}
    instance.serve()
    broker.spec["play"].insert(0, {"keyed": True})
    broker.spec["play"].insert(1, {"sleep": 1})
    instance.start()
    until(lambda: any("keyed" in said for said in broker.messages()))
    for path in instance.home.parent.rglob("*"):
        assert not path.is_file() or b"the-secret-of-ada" not in path.read_bytes()
    for pid in [instance.process.pid, *running(broker.order)]:
        for what in ("cmdline", "environ"):
            assert b"the-secret-of-ada" not in Path(f"/proc/{pid}/{what}").read_bytes()
    until(lambda: broker.status()["server"] == "up")
    assert "keyed True https://git.example says ***" in broker.messages()
    assert "the-secret-of-ada" not in json.dumps(broker.reports)


def test_a_builder_that_does_not_want_what_opens_the_repository_is_no_fault(instance, broker):
    broker.key = {"origin": "https://git.example", "user": "ada", "secret": "the-secret-of-ada"}
    instance.serve()
    instance.up()


def test_an_endless_line_and_an_endless_log_are_cut(instance, broker):
    flood = {"raw": "y" * 3_000_000 + "\n" + "z\n" * 20_000}
    instance.play({"phase": "building", "message": "now"}, flood, {"phase": "failed", "message": "no"})
    instance.start()
    assert instance.exit_status(60) == 1
    assert len(broker.events) == agent.LOG_LINES + 1
    assert broker.messages()[-2:] == ["Further lines are left out.", "no"]


def test_a_report_that_the_broker_will_never_take_does_not_hold_back_the_next(instance, broker):
    broker.answers["/agent/report"] = [422]
    instance.play({"phase": "building", "message": "odd"}, {"sleep": 1}, {"phase": "failed", "message": "no"})
    instance.start()
    assert instance.exit_status() in (0, 1)


# Building


def test_a_failed_build_is_told_before_the_agent_leaves(instance, broker):
    instance.play({"phase": "failed", "message": "apt.txt needs a container."})
    instance.start()
    assert instance.exit_status() == 1
    assert broker.messages("failed") == ["apt.txt needs a container."]


def test_a_builder_that_dies_is_a_failure_with_its_last_lines(instance, broker):
    instance.play({"phase": "building", "message": "b"}, {"error": "Traceback: no space left"}, {"exit": 7})
    instance.start()
    assert instance.exit_status() == 1
    assert broker.messages("failed") == [
        "The builder ended unexpectedly (exit status 7). Its last lines: Traceback: no space left"
    ]


def test_a_build_that_takes_too_long_is_ended(instance, broker):
    broker.spec["build_seconds"] = 0.5
    instance.play({"phase": "building", "message": "b"}, {"sleep": 600})
    instance.start()
    assert instance.exit_status() == 1
    assert "took longer than" in broker.messages("failed")[0]


def test_the_builder_gets_the_spec_and_where_to_build_and_the_file_is_gone_afterwards(instance, broker):
    broker.spec["commit"] = "c" * 40
    (instance.home.parent / "builder.py").write_text(
        "import json, os, sys\nspec = json.load(open(sys.argv[1]))\nmode = oct(os.stat(sys.argv[1]).st_mode)\n"
        "print(json.dumps({'phase': 'failed', 'message': json.dumps([spec, mode])}))"
    )
    instance.start()
    assert instance.exit_status() == 1
    spec, mode = json.loads(broker.messages("failed")[0])
    assert {"commit": "c" * 40, "python_downloads": False, "home": str(instance.home)}.items() <= spec.items()
    assert mode.endswith("600")
    assert not (instance.home / "spec.json").exists()


# Serving


def test_a_server_on_the_socket_is_up_and_sees_only_its_own_environment(instance, broker):
    instance.env["A_SECRET_OF_OURS"] = "s3cret"
    instance.serve()
    instance.up()
    assert broker.status()["kind"] == "app"
    leg = broker.take()
    leg.send(b"GET /environ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    environ = json.loads(leg.receive_all().partition(b"\r\n\r\n")[2])
    assert environ["FROM_BUILDER"] == "yes"
    assert environ["HOME"] == str(instance.home / "home")
    assert environ["JUPYTER_TOKEN"] == SERVER_TOKEN
    assert environ[agent.MARK] == broker.order
    assert environ["PORT"].isdigit()
    assert not {"A_SECRET_OF_OURS", "PYTEST_CURRENT_TEST"} & environ.keys()


def test_a_busy_kernel_is_activity_and_one_busy_for_too_long_is_not(instance, broker):
    broker.spec["busy_hours"] = 1.5 / 3600
    instance.serve("jupyter")
    idle = {"id": "a", "last_activity": "2020-01-01T00:00:00.000000Z", "execution_state": "idle"}
    busy = {**idle, "id": "b", "execution_state": "busy"}
    instance.up()
    assert broker.status()["kind"] == "jupyter"
    (instance.home / "kernels.new").write_text(json.dumps([idle, busy]))
    (instance.home / "kernels.new").rename(instance.home / "kernels.json")
    began = until(lambda: broker.status()["busy"] == 1 and broker.status()["last_activity"])
    assert broker.status()["kernels"] == 2
    assert broker.status()["busy_since"]
    until(lambda: broker.status()["last_activity"] > began, what="a busy kernel is activity")

    def at_rest() -> bool:
        seen, said = broker.status()["last_activity"], len(broker.reports)
        until(lambda: len(broker.reports) > said + 3)
        return broker.status()["last_activity"] == seen

    until(at_rest, what="after a while it no longer is")
    assert broker.status()["busy"] == 1


def test_a_server_that_ends_before_it_answers_is_a_failure_with_its_last_lines(instance, broker):
    instance.serve(script="import sys; print('about to fail'); sys.exit('no such module')")
    instance.start()
    assert instance.exit_status() == 1
    assert broker.messages("failed") == [
        "The server ended before it answered (exit status 1). Its last lines: about to fail / no such module"
    ]


def test_a_server_that_cannot_be_started_is_a_failure(instance, broker):
    instance.play({"phase": "built", "message": "b", "server": {"argv": ["/no/such/program"], "env": {}}})
    instance.start()
    assert instance.exit_status() == 1
    assert "/no/such/program" in broker.messages("failed")[0]


def test_a_server_on_a_port_is_refused_in_a_sentence(instance, broker):
    instance.serve("port")
    instance.start()
    assert instance.exit_status() == 1
    assert "ANYBINDER_SOCKET" in broker.messages("failed")[0]
    assert "ANYBINDER_LOCAL_TCP_SERVERS=true" in broker.messages("failed")[0]


def test_a_server_on_a_port_is_served_where_that_is_allowed(instance, broker):
    instance.boot["tcp_servers"] = True
    instance.serve("port")
    instance.up()
    leg = broker.take()
    leg.send(b"GET /bytes/3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert leg.receive_all().endswith(b"xxx")


def test_a_server_that_ends_later_is_reported_down_and_the_agent_stays(instance, broker):
    instance.serve()
    instance.up()
    broker.take().send(b"GET /quit HTTP/1.1\r\nHost: x\r\n\r\n")
    until(lambda: broker.status()["server"] == "down" and len(broker.events) > 4)
    assert broker.messages()[-1] == "The server has ended (exit status 3). Its last lines: goodbye"
    assert instance.process.poll() is None


# The end


def test_told_to_stop_it_ends_the_server_and_leaves(instance, broker):
    instance.serve()
    instance.up()
    broker.command = "stop"
    assert instance.exit_status() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_as_told(instance, broker, number):
    instance.serve()
    instance.up()
    instance.process.send_signal(number)
    assert instance.exit_status() == 0


def test_it_ends_at_the_deadline(instance, broker):
    instance.serve()
    instance.up()
    broker.deadline = datetime.now(UTC) + timedelta(seconds=1)
    assert instance.exit_status() == 0


def test_it_ends_at_the_instant_known_from_birth_whatever_the_broker_says(instance, broker):
    instance.until = datetime.now(UTC) + timedelta(seconds=3)
    instance.serve()
    instance.up()
    assert instance.exit_status() == 0


def test_it_ends_when_the_broker_is_silent(instance, broker):
    broker.silence_seconds = 1.5
    instance.serve()
    instance.up()
    broker.close()
    assert instance.exit_status() == 5


def test_it_ends_when_the_broker_never_answers(instance, broker):
    instance.boot["silence_seconds"] = 1
    broker.close()
    instance.start()
    assert instance.exit_status() == 5


def test_revoked_it_ends(instance, broker):
    instance.serve()
    instance.up()
    broker.answers["/agent/report"] = [410]
    assert instance.exit_status() == 3


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="finds daemons by /proc")
@pytest.mark.parametrize("way", ["stop", "guardian killed", "worker killed"])
def test_daemons_of_a_strangers_code_end_too(instance, broker, way):
    instance.serve(script=ORPHANS)
    instance.up()
    until(lambda: len(running(broker.order)) >= 4, what="the server and three daemons run")
    if way == "stop":
        broker.command = "stop"
    else:
        os.kill(instance.process.pid if way == "guardian killed" else instance.workers()[0], signal.SIGKILL)
    instance.exit_status()
    until(lambda: not running(broker.order), what="all are gone")


def test_a_server_that_ignores_sigterm_is_killed(instance, broker):
    instance.serve(script="import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SERVER)
    instance.up()
    broker.command = "stop"
    assert instance.exit_status() == 0


# The tunnel, alone


class Running:
    """A `Tunnel` on a loop in a thread of its own."""

    def __init__(self, make: Callable[[], agent.Tunnel]) -> None:
        self._loop = asyncio.new_event_loop()
        self.tunnel: agent.Tunnel
        self.ended = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(make,))
        self._thread.start()
        self._ready.wait()

    def _run(self, make: Callable[[], agent.Tunnel]) -> None:
        async def main() -> None:
            self.tunnel = make()
            self._task = asyncio.ensure_future(self.tunnel.run())
            self._ready.set()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self.ended.set()
            await asyncio.sleep(0)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self._loop.run_until_complete(main())
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join()


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[str]:
    """A web server on a unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="ab-"))
    (tmp_path / "backend.py").write_text(SERVER)
    env = {**os.environ, "ANYBINDER_SOCKET": str(folder / "s.sock"), "JUPYTER_TOKEN": "t"}
    process = subprocess.Popen([sys.executable, str(tmp_path / "backend.py")], env=env)
    until((folder / "s.sock").exists)
    yield str(folder / "s.sock")
    process.kill()
    process.wait()
    shutil.rmtree(folder)


@pytest.fixture
def tunnels() -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(broker: BrokerDouble, connect: Any, **more: Any) -> Running:
        started.append(Running(lambda: agent.Tunnel(broker.url, "launch234567", SESSION_SECRET, connect, **more)))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_four_streams_are_parked_and_the_next_is_dialled_as_one_is_taken(broker, backend, tunnels):
    tunnels(broker, backend)
    until(lambda: broker.parked.qsize() == 4)
    broker.take()
    until(lambda: broker.parked.qsize() == 4)


def test_while_many_are_taken_more_are_parked(broker, backend, tunnels):
    tunnels(broker, backend)
    legs = [broker.take() for _ in range(20)]
    until(lambda: broker.parked.qsize() > 10)
    assert len(legs) == 20


def test_a_ping_is_answered_and_bytes_may_follow_the_take_at_once(broker, backend, tunnels):
    tunnels(broker, backend)
    leg = broker.parked.get(timeout=10)
    leg.send(b"\x00")
    assert leg.receive(1) == b"\x00"
    leg.send(b"\x00\x01GET /bytes/5 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = leg.receive_all()
    assert answer.startswith(b"\x00\x01HTTP/1.1 200")
    assert answer.endswith(b"xxxxx")


def test_a_server_that_is_not_there_is_refused_with_a_byte(broker, tunnels, tmp_path):
    tunnels(broker, str(tmp_path / "none"))
    with pytest.raises(Refused):
        broker.take()


@pytest.mark.parametrize("raw", [True, False], ids=["plain", "WebSocket"])
def test_large_bodies_pass_both_ways(broker, backend, tunnels, raw):
    broker.raw_upgrades = raw
    tunnels(broker, backend)
    leg, size = broker.take(), 30_000_000
    assert leg.framed is not raw
    leg.send(b"GET /bytes/%d HTTP/1.1\r\nHost: x\r\n\r\n" % size)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += leg.receive(1)
    assert leg.receive_exactly(size) == b"x" * size
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
    leg.send(head)
    for _ in range(30):
        leg.send(bytes(1_000_000))
    assert b'"received": %d' % size in leg.receive_all()


def test_an_end_in_one_direction_leaves_the_other_open(broker, tunnels, tmp_path):
    folder = Path(tempfile.mkdtemp(prefix="ab-"))
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())
        writer.write(b"after your end")
        writer.close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_unix_server(serve, folder / "s.sock"))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        tunnels(broker, str(folder / "s.sock"))
        leg = broker.take()
        leg.send(b"all of it")
        leg.end()
        assert leg.receive_all() == b"after your end"
        assert heard == [b"all of it"]
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        shutil.rmtree(folder)


class Leaving:
    """A server on a unix socket: says as much as can be on its way at once, and has left before anybody read it."""

    def __init__(self, folder: Path, *, asked_for: int) -> None:
        self.path = str(folder / "s.sock")
        self.said = 0
        self._asked_for = asked_for
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with self._listener, connection:
            asked = connection.recv(self._asked_for, socket.MSG_WAITALL)
            while asked and select.select([], [connection], [], 0.5)[1]:
                self.said += connection.send(b"x" * 10_000, socket.MSG_DONTWAIT)

    def left(self) -> None:
        self._thread.join()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A unix socket's path has a limit."""
    with tempfile.TemporaryDirectory(prefix="ab-") as folder:
        yield Path(folder)


@pytest.mark.parametrize("raw", [True, False], ids=["plain", "WebSocket"])
def test_who_reads_late_gets_all_from_a_server_that_has_left(broker, tunnels, short_path, raw):
    broker.raw_upgrades = raw
    server = Leaving(short_path, asked_for=1)
    tunnels(broker, server.path)
    leg = broker.take()
    leg.send(b"?")
    server.left()
    assert len(leg.receive_all()) == server.said
    assert not leg.framed or leg.told_the_end


def test_a_server_that_leaves_without_having_read_all_is_heard_to_its_end(broker, tunnels, short_path):
    server = Leaving(short_path, asked_for=1)
    running = tunnels(broker, server.path)
    leg = broker.take()
    leg.send(bytes(1_000_000))
    server.left()
    leg.send(bytes(1_000_000))
    assert len(leg.receive_all()) == server.said
    leg.close()
    until(lambda: not running.tunnel._joined, what="the stream to be over")


def test_a_slow_reader_holds_the_sender_back(broker, backend, tunnels):
    running_tunnel = tunnels(broker, backend)
    leg = broker.take()
    leg.send(b"GET /bytes/80000000 HTTP/1.1\r\nHost: x\r\n\r\n")
    leg.receive(1)

    def peak() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = peak()
    until(lambda: leg.receive(1))
    assert running_tunnel.tunnel.last_byte
    assert peak() - before < 40_000_000


def test_a_restarted_broker_gets_its_streams_back(broker, backend, tunnels):
    tunnels(broker, backend)
    until(lambda: broker.parked.qsize() == 4)
    broker.close()
    second = BrokerDouble(port=broker.port)
    try:
        leg = second.take()
        leg.send(b"GET /bytes/2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert leg.receive_all().endswith(b"xx")
    finally:
        second.close()


def test_unknown_for_a_while_it_tries_again_and_revoked_it_returns(broker, backend, tunnels):
    broker.answers["/agent/tunnel"] = [404, 404, 503, 503]
    running_tunnel = tunnels(broker, backend)
    until(lambda: broker.parked.qsize() == 4)
    assert not running_tunnel.ended.is_set()
    broker.answers["/agent/tunnel"] = [403]
    broker.parked.get().close()
    assert running_tunnel.ended.wait(10)


def test_streams_that_hear_no_ping_are_dialled_anew(broker, backend, tunnels, monkeypatch):
    monkeypatch.setattr(agent, "STALE_SECONDS", 0.4)
    tunnels(broker, backend)
    until(lambda: broker.parked.qsize() > 8)


def test_a_broker_with_tls_is_reached_through_the_campus_proxy(certificate, backend, tunnels, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    broker, proxy = BrokerDouble(tls=context), ProxyDouble()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("https_proxy", f"http://ada:pw@127.0.0.1:{proxy.port}")
    monkeypatch.setenv("no_proxy", "")
    try:
        tunnels(broker, backend)
        leg = broker.take()
        leg.send(b"GET /bytes/2000000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert leg.receive_all().endswith(b"x" * 2_000_000)
        assert f"127.0.0.1:{broker.port}" in proxy.asked
        assert proxy.logins[0] == "Basic YWRhOnB3"
    finally:
        broker.close()
        proxy.close()


def test_a_broker_with_a_certificate_of_nobodys_is_not_spoken_to(certificate, backend, tunnels):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    broker = BrokerDouble(tls=context)
    try:
        running_tunnel = tunnels(broker, backend)
        until(lambda: running_tunnel.tunnel._failures > 2)
        assert broker.parked.empty()
    finally:
        broker.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a self-signed certificate for 127.0.0.1, in one file."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 7, now - timedelta(hours=1), now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(private + made.public_bytes(pem))
    return path
