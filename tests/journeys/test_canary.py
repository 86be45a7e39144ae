"""A secret of every kind in a real run that goes wrong in every way we know, and then a search for each of them.

What is found must be found where docs/security.md says it lives ("Secrets"), and nowhere else.
"""

from __future__ import annotations

import json
import re
import resource
import secrets
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker import api_tokens, backends, bootstrap, connections, people, repo_access, service, sessions, settings
from broker.people import LOCAL
from providers.fake import FakeCloud
from tests.doubles import git_repos
from tests.doubles.git_server import GitServer
from tests.doubles.openid_double import OpenIdDouble
from tests.journeys import canaries
from tests.journeys.conftest import BUILD_SECONDS, Broker
from tests.journeys.test_launch import PLAIN_APP
from tests.waiting import until

LIVES_IN: dict[str, set[str]] = {
    "root key": {"home/root.key"},
    "sealing key": {"home/sealing.keys"},
    "bearer key": {"home/broker.json"},
    "client secret": {"home/config.toml"},
    # what `up` prints: here its terminal is a file. It opens one browser, once, within ten minutes
    "one-time key of the page, as printed": {"home/up.log"},
    # the server is told what it shall ask for: our own, and the tiny one of the fake cloud's machines
    "server token": {"environ of python app.py", "environ of python session.py jupyter"},
}
"""What docs/security.md names as a place in clear. What is not named here is found nowhere at all: an agent erases its boot
data when it has read it."""


@dataclass
class Run:
    """One broker, its surroundings, and every secret there is."""

    broker: Broker
    cloud: FakeCloud
    git: GitServer
    campus: OpenIdDouble
    folder: Path
    secrets: dict[str, str | bytes] = field(default_factory=dict)
    answers: list[tuple[str, bytes]] = field(default_factory=list)
    """What the broker said to people who may not see secrets: errors, figures, lists of events."""
    _searched: float = 0
    _knew: int = 0

    def new(self, name: str) -> str:
        made = secrets.token_urlsafe(30)
        self.secrets[name] = made
        return made

    def inside(self) -> service.Service:
        """A service on the broker's own folder, as its other processes have it."""
        return service.build(settings.Settings(home=self.broker.home, **told(self)), migrate=False)

    def search(self) -> set[tuple[str, str]]:
        """Which secret is where right now. Large files are looked at again when they have changed."""
        since, self._searched = self._searched, time.time() - 1
        places = [
            *canaries.in_files("home", self.broker.home, since=since if self._knew == len(self.secrets) else 0),
            *canaries.in_files("cloud", self.cloud.folder),
            *canaries.in_files("tmp", self.folder / "tmp"),
            *canaries.in_files("repos", self.git.root),
            *canaries.in_files("runtime", settings.Settings(home=self.broker.home).runtime),
            *canaries.in_processes(),
            *self.answers,
        ]
        self._knew = len(self.secrets)
        everything = canaries.found(self.secrets, places)
        return {(name, re.sub(r"machine-\d+", "machine-N", place)) for name, place in everything}

    def leaks(self) -> set[tuple[str, str]]:
        """The same without what is where it belongs."""
        return {(name, place) for name, place in self.search() if place not in LIVES_IN.get(kind(name), ())}

    def page(self, path: str, **options: Any) -> httpx.Response:
        """A page of the broker's, as a browser that is not signed in asks for it; what it says is searched too."""
        answer = httpx.request(options.pop("method", "GET"), f"{self.home_page}{path}", timeout=30, **options)
        self.answers.append((f"answer of {path.partition('?')[0]}", answer.content))
        return answer

    @property
    def home_page(self) -> str:
        return f"http://localhost:{self.broker.address['port']}"


def kind(name: str) -> str:
    """`server token (here)` is a server token."""
    return name.partition(" (")[0]


def told(run: Run) -> dict[str, Any]:
    cloud = run.cloud.configuration
    return {
        "backends": [
            {"name": "here", "provider": "local"},
            {"name": "kept", "provider": "fake", "configuration": {**cloud, "kinds": "kept", "lists_within": "1"}},
            {"name": "lent", "provider": "fake", "configuration": {**cloud, "kinds": "delegated"}},
            {"name": "broken", "provider": "fake", "configuration": {**cloud, "kinds": "delegated"}},
            {"name": "keyless", "provider": "fake", "configuration": {**cloud, "kinds": "keyless"}},
        ],
        "hosts": {"git": {"url": run.git.url}},
        "identities": [{"name": "campus", "issuer": run.campus.issuer, "client_id": run.campus.client_id,
                        "client_secret": run.campus.client_secret}],
    }  # fmt: skip


def written(told: dict[str, Any]) -> str:
    """As TOML: JSON's strings and lists of these are the same there."""
    lines = []
    for table in ("backends", "identities"):
        for each in told[table]:
            lines.append(f"[[{table}]]")
            lines += [f"{name} = {json.dumps(value)}" for name, value in each.items() if not isinstance(value, dict)]
            for name, inner in each.items():
                if isinstance(inner, dict):
                    lines.append(f"[{table}.{name}]")
                    lines += [f"{key} = {json.dumps(value)}" for key, value in inner.items()]
    lines += [f'[hosts.git]\nurl = "{told["hosts"]["git"]["url"]}"']
    return "\n".join(lines) + "\n"


@pytest.fixture
def run(home: Path, tmp_path: Path) -> Iterator[Run]:
    root = tmp_path / "repos"
    git_repos.make_repo(root, "private/app", PLAIN_APP)
    (tmp_path / "tmp").mkdir(mode=0o700)
    extra = {"ANYBINDER_LOG_LEVEL": "debug", "ANYBINDER_SWEEP_SECONDS": "1", "TMPDIR": str(tmp_path / "tmp")}
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))  # who dies may leave all it knew behind
    with FakeCloud.start() as cloud, GitServer(root) as git, OpenIdDouble() as campus:
        run = Run(Broker(home, extra), cloud, git, campus, tmp_path)
        try:
            campus.client_secret = run.new("client secret")
            home.mkdir(mode=0o700)
            (home / "config.toml").write_text(written(told(run)))
            (home / "config.toml").chmod(0o600)
            run.broker.start("up", "--no-browser", "--port", "0")
            run.broker.wait()
            yield run
        finally:
            run.broker.close()
            resource.setrlimit(resource.RLIMIT_CORE, limits)


# --- what happens in the run ---------------------------------------------------------------------------------------------


def entrust(run: Run) -> None:
    """A person connects everything that takes a secret."""
    at = run.inside()
    try:
        run.cloud.options(key=run.new("kept key"))
        token = run.new("repository token")
        run.git.private.add("private/app")
        run.git.rights[token] = {"private/app"}
        connect(at, "kept", "kept", key=run.secrets["kept key"])
        connect(at, "lent", "delegated", key=run.new("delegated secret"))  # which the cloud does not know
        connect(at, "broken", "delegated", key=run.secrets["kept key"])
        connect(at, "keyless", "keyless")
        kinds = repo_access.kinds(at, LOCAL, "git")
        connections.connect(at, LOCAL, "repo:git", kinds, "token", {"user": "ada", "token": token})
    finally:
        at.close()
    with sqlite3.connect(run.broker.home / "anybinder.sqlite", timeout=30) as table:
        # what no code of ours has written: signing in with it ends in a traceback
        broken = json.dumps({"until": "never was a day"})
        table.execute("UPDATE connections SET settings = ? WHERE target = 'backend:broken'", (broken,))
    table.close()


def mistype(run: Run) -> None:
    """Forms with a secret in them, sent as a browser would: wrong, too long, and with nonsense in the field beside it."""
    shown = {"Authorization": f"Bearer {run.broker.address['key']}", "Origin": run.home_page}
    wrong = run.new("mistyped secret")
    for fields in ({"key": wrong, "until": "\x01"}, {"key": wrong * 200}, {"key": wrong}):
        answer = run.page("/connect/lent/delegated", method="POST", data=fields, headers=shown)
        assert answer.status_code in (200, 303, 400), answer.text
    run.page("/connect/lent", headers=shown)
    run.page("/connect/lent/check", method="POST", headers=shown)
    begun = httpx.post(f"{run.home_page}/api/device", data={"name": "canary"}, timeout=30)
    run.secrets["code of a command line"] = begun.json()["device_code"]
    run.page("/api/device/token", method="POST", data={"device_code": run.secrets["code of a command line"]})


def connect(at: service.Service, backend: str, kind: str, **typed: str) -> None:
    provider = backends.named(at, backend).provider
    connections.connect(at, LOCAL, f"backend:{backend}", provider.kinds, kind, typed)


def sign_in(run: Run) -> people.Person:
    """Somebody signs in with a browser, makes a token, and uses it where it belongs and where it does not."""
    with httpx.Client(base_url=run.home_page, timeout=30) as browser:
        answer = run.campus.sign_in(browser)
        assert answer.status_code == 303, answer.text
        run.secrets["cookie of a sign-in"] = browser.cookies["anybinder-sign-in"]
        assert browser.get("/account").status_code == 200
    run.secrets |= {f"campus token {number}": token for number, token in enumerate(run.campus.tokens)}
    run.page("/login/campus/callback", params={"state": run.new("state of another"), "code": run.new("stolen code")})
    at = run.inside()
    try:
        with sqlite3.connect(run.broker.home / "anybinder.sqlite", timeout=30) as table:
            ((person,),) = table.execute("SELECT id FROM people")
        table.close()
        ada = people.known(at, person)
        _, text = api_tokens.create(at, ada, name="canary", scopes=["read", "launch"])
        run.secrets["API token"] = text
    finally:
        at.close()
    shown = {"Authorization": f"Bearer {text}"}
    assert run.page("/api/me", headers=shown).status_code == 200
    run.page("/api/launches", headers={"Authorization": f"Bearer {text}x"})
    run.page("/api/launches", params={"token": text})
    run.page("/nowhere", params={"token": text})
    return ada


def ask(run: Run, backend: str, repo: str = "") -> dict[str, Any]:
    told = {"repo": repo or f"{run.git.url}/public/app", "backend": backend, "name": backend, "consent": True}
    answer = run.broker.api("POST", "/api/launches", json=told)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def state(run: Run, launch: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = run.broker.api("GET", f"/api/launches/{launch['id']}").json()
    return found


def ends(run: Run, launch: dict[str, Any], *states: str, seconds: float = 60) -> dict[str, Any]:
    until(
        lambda: state(run, launch)["state"] in states, seconds=seconds, what=f"{state(run, launch)}\n{run.broker.log()}"
    )
    events = run.broker.api("GET", f"/api/launches/{launch['id']}/events", headers={"Accept": "application/json"})
    run.answers.append(("events", events.content))
    return state(run, launch)


def launch_privately(run: Run) -> dict[str, Any]:
    """The private repository, here; looked for while git fetches it, twice."""
    run.git.gate.clear()
    answers: list[dict[str, Any]] = []
    asking = threading.Thread(target=lambda: answers.append(ask(run, "here", f"{run.git.url}/private/app")))
    asking.start()
    until(run.git.count, what="git asks")
    assert run.leaks() == set(), "while it is looked up"
    run.git.gate.set()
    asking.join(60)
    (launch,) = answers
    before = run.git.count()
    run.git.gate.clear()
    until(lambda: run.git.count() > before, seconds=60, what=f"git fetches\n{run.broker.log()}")
    assert run.leaks() == set(), "while it is cloned"
    run.git.gate.set()
    return ends(run, launch, "ready", "stopped", seconds=BUILD_SECONDS)


def learn(run: Run, launch: dict[str, Any]) -> None:
    """The secrets of this session, which are made of the root key."""
    at = run.inside()
    try:
        name = launch["name"]
        with sqlite3.connect(run.broker.home / "anybinder.sqlite", timeout=30) as table:
            (order,) = table.execute("SELECT id FROM orders WHERE launch_id = ?", (launch["id"],)).fetchone()
        table.close()
        run.secrets |= {
            f"launch token ({name})": sessions.launch_token(at, launch["id"]),
            f"tunnel secret ({name})": sessions.tunnel_secret(at, order),
            f"server token ({name})": sessions.server_token(at, order),
            f"enrolment token ({name})": bootstrap.enrolment_token(at, order),
        }
    finally:
        at.close()


def be_an_agent(run: Run) -> None:
    """A machine whose agent is us, so that its secret is known: it enrols, reports, lies, and enrols once more."""
    run.cloud.fault("provision", "never_dials")
    launch = ask(run, "kept")
    until(lambda: run.cloud.instances(), seconds=20, what=run.broker.log())
    learn(run, launch)
    agent = run.new("agent secret")
    with sqlite3.connect(run.broker.home / "anybinder.sqlite", timeout=30) as table:
        (order,) = table.execute("SELECT id FROM orders WHERE launch_id = ?", (launch["id"],)).fetchone()
    table.close()
    said = {"order": order, "agent": agent, "nonce": "00"}
    token = {"Authorization": f"Bearer {run.secrets['enrolment token (kept)']!s}"}
    assert run.page("/agent/enrol", method="POST", json=said, headers=token).status_code == 200
    mine = {"Authorization": f"Bearer {agent}"}
    report = {"order": order, "first": 1, "events": [{"phase": "building", "message": "Building."}], "status": {}}
    assert run.page("/agent/report", method="POST", json=report, headers=mine).status_code == 200
    run.page("/agent/report", method="POST", json={**report, "order": "another"}, headers=mine)
    run.page("/agent/report", method="POST", json={"order": agent, "first": agent}, headers=mine)  # makes no sense
    run.answers = [each for each in run.answers if each[0] != "answer of /agent/enrol"]  # it is told its own secrets
    ended = run.page("/agent/enrol", method="POST", json={**said, "agent": run.new("thief's secret")}, headers=token)
    assert ended.status_code == 403
    ends(run, launch, "stopped")


def fail(run: Run) -> None:
    """A sign-in that is refused, one that ends in a traceback, and one without a key, that works."""
    refused = ends(run, ask(run, "lent"), "stopped")
    assert refused["reason"] == "credential", refused
    ended = ends(run, ask(run, "broken"), "stopped")
    assert "an error of its own" in ended["message"], ended
    assert "Traceback" in (run.broker.home / "up.log").read_text()
    keyless = ends(run, ask(run, "keyless"), "ready", "stopped")
    assert keyless["state"] == "ready", f"{keyless}\n{run.broker.log()}"
    learn(run, keyless)


def crash(run: Run) -> None:
    """It dies in the middle of everything, with leave to say its last words, and starts again."""
    port = run.broker.address["port"]
    run.broker.kill(run.broker.processes[0], signal.SIGABRT)
    assert run.leaks() == set(), "after its death"
    run.broker.start("up", "--no-browser", "--port", str(port))
    until(lambda: answers(run), seconds=30, what=run.broker.log())


def answers(run: Run) -> bool:
    try:
        return run.broker.api("GET", "/api/launches").status_code == 200
    except httpx.TransportError:
        return False


def own_keys(run: Run) -> None:
    """What the broker itself is made of."""
    home = run.broker.home
    run.secrets["root key"] = (home / "root.key").read_bytes()
    run.secrets["sealing key"] = (home / "sealing.keys").read_text().strip().partition(":")[2]
    run.secrets["bearer key"] = run.broker.address["key"]
    printed = re.search(r"\?key=(\S+)", (home / "up.log").read_text())
    assert printed
    run.secrets["one-time key of the page, as printed"] = printed[1]
    run.secrets["one-time key of the page"] = run.broker.api("POST", "/api/keys").json()["key"]
    at = run.inside()
    try:
        from broker import identity

        identity.token(at, "launch:nobody", backends.base.Assertion(audience="nobody"))
        (key,) = at.signing.values()
        pem = key.as_pem(private=True).decode().splitlines()
        run.secrets["signing key"] = pem[len(pem) // 2]
        run.secrets["signing key as a number"] = str(key.as_dict(private=True)["d"])
    finally:
        at.close()


# --- and what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.timeout(2 * BUILD_SECONDS)
def test_no_secret_is_found_anywhere_but_where_it_lives(run: Run) -> None:
    git_repos.make_repo(run.git.root, "public/app", PLAIN_APP)
    entrust(run)
    sign_in(run)
    ready = launch_privately(run)
    assert ready["state"] == "ready", f"{ready}\n{run.broker.log()}"
    learn(run, ready)
    assert httpx.get(ready["url"], params={"token": ready["token"]}, follow_redirects=True).status_code == 200
    httpx.get(ready["url"], params={"token": run.secrets["API token"]})  # a token where it does not belong
    be_an_agent(run)
    fail(run)
    mistype(run)
    own_keys(run)
    for path in ("/metrics", "/health", "/versions", "/.well-known/jwks.json", "/.well-known/openid-configuration"):
        run.page(path)
    assert run.leaks() == set(), "while sessions run"
    places = {place for _, place in run.search()}
    assert places == set().union(*LIVES_IN.values()), "what lives in clear was found there: the search works"
    crash(run)
    for launch in run.broker.api("GET", "/api/launches").json():
        if launch["state"] != "stopped":
            run.broker.api("DELETE", f"/api/launches/{launch['id']}")
            ends(run, launch, "stopped")
    assert run.leaks() == set(), "when all is over"
    left = {kind(name) for name, _ in run.search()}
    assert left == set(LIVES_IN) - {"server token"}, "the rest goes with its instance"


def test_the_search_finds_what_is_planted(run: Run) -> None:
    """In each kind of place, and spelled in each way: a search that finds nothing proves nothing."""
    planted = run.new("planted")
    run.answers.append(("answer of /planted", f"it is {planted}".encode()))
    with (run.broker.home / "up.log").open("a") as log:
        log.write(f"Traceback: {planted}\n")
    (run.folder / "tmp" / "core").write_bytes(bytes(1000) + planted.encode())
    with sqlite3.connect(run.broker.home / "anybinder.sqlite", timeout=30) as table:
        table.execute("INSERT INTO people (id, name, email, created_at) VALUES ('x', ?, '', '2026-01-01')", (planted,))
    table.close()
    told = run.broker.processes[0]
    run.broker.environment["PLANTED"] = planted
    child = run.broker.start("list", "--json", planted)
    found = {place for _, place in run.search()}
    child.wait(20)
    run.broker.processes = [told]
    assert {"answer of /planted", "home/up.log", "tmp/core"} <= found
    assert {"home/anybinder.sqlite-wal", "home/anybinder.sqlite"} & found
    assert any(place.startswith("cmdline of") for place in found)
    assert any(place.startswith("environ of") for place in found)
    assert run.leaks(), "and it counts as a leak"


@pytest.mark.parametrize("before", ["", "a", "ab", "user:"])
def test_a_spelling_in_base64_is_found_wherever_it_begins(before: str) -> None:
    import base64

    secret = secrets.token_urlsafe(30)
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        hidden = encode(f"{before}{secret} and more".encode())
        assert canaries.found({"it": secret}, [("here", hidden)]) == {("it", "here")}
    assert canaries.found({"it": secret}, [("here", b"nothing of it")]) == set()
