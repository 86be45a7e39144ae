"""A second OpenID provider, by other people than Keycloak's: npm's certified `oidc-provider`, in a process of its own.

Fetched once a clone into `.work/node-openid`, which git ignores.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from broker import settings
from tests import servers
from tests.waiting import until

PACKAGES = {"oidc-provider": "8.8.1"}  # the last that runs on Node.js 18, which Debian 12 has
FOLDER = Path(__file__).resolve().parent.parent.parent / ".work" / "node-openid"
PROGRAM = Path(__file__).with_suffix(".mjs")
FETCH_SECONDS = 300


@dataclass(frozen=True, kw_only=True)
class NodeOpenid:
    """A running provider. Anybody may sign in, with any password."""

    url: str
    people: Path
    log: Path

    def put_in(self, person: str, groups: Sequence[str]) -> None:
        """These are this person's groups from now on."""
        known = json.loads(self.people.read_text())
        draft = self.people.with_suffix(".new")
        draft.write_text(json.dumps(known | {person: list(groups)}))
        draft.rename(self.people)

    def answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/.well-known/openid-configuration").status_code == 200
        return False


@contextlib.contextmanager
def running(*, client_id: str, client_secret: str, broker: str, name: str) -> Iterator[NodeOpenid]:
    """Starts in a second. It knows one client: the broker at this address, which calls this provider by this name."""
    port = settings.free_port()
    way = f"{broker}/login/{name}"
    client = {
        "client_id": client_id,
        "client_secret": client_secret,
        "redirect_uris": [f"{way}/callback"],
        "post_logout_redirect_uris": [f"{way}/loggedout"],
        "backchannel_logout_uri": f"{way}/backchannel",
        "backchannel_logout_session_required": True,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    }
    with tempfile.TemporaryDirectory(prefix="abopenid-") as folder, Path(folder, "log").open("w+") as log:
        people = Path(folder, "people.json")
        people.write_text("{}")
        told = {"port": port, "client": client, "people": str(people), "cookie_key": secrets.token_hex(16)}
        server = subprocess.Popen(
            ["node", str(program())], cwd=folder, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True
        )
        servers.keep(server.pid)
        assert server.stdin
        server.stdin.write(json.dumps(told))
        server.stdin.close()
        made = NodeOpenid(url=f"http://127.0.0.1:{port}", people=people, log=Path(folder, "log"))
        try:
            until(lambda: made.answers() or server.poll() is not None, seconds=30, what="the provider answers")
            assert server.poll() is None, Path(folder, "log").read_text()
            yield made
        finally:
            server.terminate()
            server.wait(20)
            servers.kept.discard(server.pid)


def program() -> Path:
    """The program beside its packages, which it imports."""
    told = json.dumps({"private": True, "type": "module", "dependencies": PACKAGES})
    file = FOLDER / "package.json"
    if not file.exists() or file.read_text() != told:
        FOLDER.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".new")
        draft.write_text(told)
        fetch()
        draft.rename(file)
    copy = FOLDER / PROGRAM.name
    if not copy.exists() or copy.read_text() != PROGRAM.read_text():
        draft = copy.with_suffix(f".{os.getpid()}")
        draft.write_text(PROGRAM.read_text())
        draft.rename(copy)
    return copy


def fetch() -> None:
    words = [f"{name}@{version}" for name, version in PACKAGES.items()]
    ended = subprocess.run(
        ["npm", "install", "--ignore-scripts", "--no-package-lock", "--no-save", "--no-audit", "--no-fund", *words],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=FETCH_SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
