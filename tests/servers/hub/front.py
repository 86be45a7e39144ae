"""BinderHub's interface before a JupyterHub: versions, health, repository hosts and the stream of a launch.

What it builds is a clone of the repository in the home of a new user; what it launches is that user's server, by the hub's REST
API and as BinderHub's launcher does: make the user, start the server with the launch's token, follow its progress.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from tests.doubles.little_http import LittleHttp

PREFIX = "/services/binder"
LAUNCH_SECONDS = 120


class Front(LittleHttp):
    """Listens until it is left; `hub_url` and `token` are told before anything is launched."""

    def __init__(self, homes: Path) -> None:
        self.homes = homes
        self.hub_url = self.token = ""
        self.quota, self.refuses = 100, False
        self.builds: list[str] = []
        """The specs that launches were asked for."""
        super().__init__(_Handler, front=self)

    def asked(self, verb: str, path: str, **more: Any) -> httpx.Response:
        """The hub's REST API, as its service."""
        headers = {"Authorization": f"token {self.token}"}
        return httpx.request(verb, f"{self.hub_url}/hub/api{path}", headers=headers, timeout=LAUNCH_SECONDS, **more)

    @property
    def running(self) -> list[str]:
        """The users whose server runs, by the hub's own list."""
        found = self.asked("GET", "/users?state=active").raise_for_status().json()
        return [each["name"] for each in found]

    def health(self) -> dict[str, Any]:
        total = len(self.running)
        quota = {"total_pods": total, "build_pods": 0, "user_pods": total, "quota": self.quota}
        checks = [
            {"service": "JupyterHub API", "ok": True},
            {"service": "Pod quota", **quota, "ok": total <= self.quota, "_ignore_failure": True},
        ]
        return {"ok": True, "checks": checks}

    def launch(self, spec: str) -> Iterator[dict[str, Any]]:
        """The events of one launch, each said once it is so."""
        self.builds.append(spec)
        repo, _, ref = spec.removeprefix("git/").partition("/")
        repo, ref = unquote(repo), unquote(ref)
        yield {"phase": "waiting", "message": "Waiting for build to start...\n"}
        if self.refuses or len(self.running) >= self.quota:
            yield {"phase": "failed", "message": "Too many users on this BinderHub! Try again soon.\n"}
            return
        user = f"{re.sub(r'[^a-z0-9]+', '-', urlsplit(repo).path.lower()).strip('-')[:30]}-{secrets.token_hex(4)}"
        yield {"phase": "fetching", "message": f"Cloning into {user}\n"}
        cloned = _clone(repo, ref, self.homes / user)
        if cloned.returncode:
            yield {"phase": "failed", "message": f"{cloned.stderr[-500:]}\n"}
            return
        image = f"local/{user}:{ref[:12]}"
        yield {"phase": "built", "message": "Built image, launching...\n", "imageName": image}
        yield {"phase": "launching", "message": "Launching server...\n"}
        yield from self._started(user, image, repo, spec)

    def _started(self, user: str, image: str, repo: str, spec: str) -> Iterator[dict[str, Any]]:
        token, host = secrets.token_urlsafe(16), f"{self.hub_url}{PREFIX}/"
        told = {"image": image, "repo_url": repo, "binder_ref_url": repo, "binder_launch_host": host}
        told |= {"binder_request": f"v2/{spec}", "binder_persistent_request": f"v2/{spec}"}
        self.asked("POST", f"/users/{user}").raise_for_status()
        self.asked("POST", f"/users/{user}/servers/", json={**told, "token": token}).raise_for_status()
        for line in self._progress(user):
            if line.get("failed"):
                yield {"phase": "failed", "message": f"{line.get('message')}\n"}
                return
            if line.get("ready"):
                break
            yield {"phase": "launching", "message": f"{line.get('message')}\n"}
        url = f"{self.hub_url}/user/{user}/"
        yield {"phase": "ready", "message": f"server running at {url}\n", "url": url, "token": token, **told}

    def _progress(self, user: str) -> Iterator[dict[str, Any]]:
        headers = {"Authorization": f"token {self.token}"}
        url = f"{self.hub_url}/hub/api/users/{user}/server/progress"
        with httpx.stream("GET", url, headers=headers, timeout=LAUNCH_SECONDS) as answer:
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))


def _clone(repo: str, ref: str, home: Path) -> subprocess.CompletedProcess[str]:
    home.parent.mkdir(parents=True, exist_ok=True)
    command = 'git clone --quiet "$0" "$2" && git -C "$2" checkout --quiet "$1"'
    return subprocess.run(["sh", "-c", command, repo, ref, str(home)], capture_output=True, text=True, check=False)


class _Handler(BaseHTTPRequestHandler):
    front: Front

    def do_GET(self) -> None:
        path = urlsplit(self.path).path.removeprefix(PREFIX)
        if path == "/versions":
            self._json({"binderhub": "1.0.0", "builder_info": {"build_image": "git-clone:1"}})
        elif path == "/health":
            self._json(self.front.health())
        elif path == "/api/repoproviders":
            self._json([{"id": "git", "displayName": "Git repository"}])
        elif path.startswith("/build/"):
            self._build(path.removeprefix("/build/"))
        else:
            self.send_error(404)

    def _build(self, spec: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            for event in self.front.launch(spec):
                self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
                self.wfile.flush()

    def _json(self, row: Any) -> None:
        body = json.dumps(row).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
