"""Clients that others have written, unchanged, from npm; and a broker whose links run for anybody."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import servers
from tests.conftest import wanted
from tests.doubles import confined_local, git_repos
from tests.doubles.git_server import GitServer
from tests.journeys.conftest import Broker

WORK = Path(__file__).resolve().parent.parent.parent / ".work" / "clients"
"""Kept in the clone, which git ignores: nothing is fetched twice."""
PACKAGES = {
    "@jupyterhub/binderhub-client": "0.5.0",
    "client-0.4": "npm:@jupyterhub/binderhub-client@0.4.0",
}
THEBE = "0.9.3"
FETCH_SECONDS = 300
NOTEBOOK = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture(scope="session")
def packages() -> Path:
    """A folder with the published versions of BinderHub's own client."""
    wanted(servers.NPM)
    told = json.dumps({"private": True, "dependencies": PACKAGES})
    file = WORK / "node" / "package.json"
    if not file.exists() or file.read_text() != told:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_name(".new").write_text(told)
        (file.with_name("package.json")).write_text(told)
        npm("install", "--ignore-scripts", "--no-package-lock", at=file.parent)
    return file.parent


@pytest.fixture(scope="session")
def thebe() -> Path:
    """Thebe as a page loads it: the folder of its published bundle."""
    wanted(servers.NPM)
    folder = WORK / f"thebe-{THEBE}"
    if not folder.exists():
        WORK.mkdir(parents=True, exist_ok=True)
        packed = npm("pack", f"thebe@{THEBE}", at=WORK).splitlines()[-1]
        draft = folder.with_suffix(".new")
        with tarfile.open(fileobj=io.BytesIO((WORK / packed).read_bytes())) as archive:
            archive.extractall(draft, filter="data")
        draft.rename(folder)
        (WORK / packed).unlink()
    return folder / "package" / "lib"


def npm(*words: str, at: Path) -> str:
    command = ["npm", "--no-audit", "--no-fund", "--silent", *words]
    ended = subprocess.run(
        command, cwd=at, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False, stdin=subprocess.DEVNULL
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.strip()


@dataclass(frozen=True, kw_only=True)
class Hub:
    """A broker that anybody's page may use, and the repositories it reaches."""

    broker: Broker
    git: GitServer

    @property
    def port(self) -> int:
        return int(self.broker.address["port"])

    def repository(self, name: str, files: dict[str, str]) -> str:
        """Its address."""
        if not (self.git.root / name).exists():
            git_repos.make_repo(self.git.root, name, files)
        return f"{self.git.url}/{name}"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """The hub of this file."""
    folder = tmp_path_factory.mktemp("clients")
    (folder / "repos").mkdir()
    settings = {**confined_local.installed(folder / "packages"), "ANYBINDER_CORS_ALLOW_ORIGIN": "*"}
    broker = Broker(folder / "home", settings)
    with GitServer(folder / "repos") as git:
        broker.start("up", "--no-browser", "--port", "0")
        try:
            broker.wait()
            yield Hub(broker=broker, git=git)
            confined_local.end_all(broker.home)
        finally:
            broker.close()
