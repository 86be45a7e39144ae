"""The same over `local`: real processes, the real builder, and an environment that was built once before."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.crashes import plans
from tests.crashes.conftest import Lanes, seeds_of
from tests.crashes.play import Outcome
from tests.doubles import git_repos
from tests.doubles.git_server import GitServer

BUILD_SECONDS = 240  # a cold environment, on a slow index
APP = {
    "start": "#!/bin/sh\nexec python app.py\n",
    "app.py": (
        "import http.server, os, socketserver\n"
        "class App(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.send_header('content-length', '2'); self.end_headers()\n"
        "        self.wfile.write(b'hi')\n"
        "    def address_string(self): return 'unix'\n"
        "class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): pass\n"
        "Server(os.environ['ANYBINDER_SOCKET'], App).serve_forever()\n"
    ),
}


@pytest.fixture(scope="module")
def local_lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lanes]:
    """With a repository on a real git server, and its environment built."""
    root = tmp_path_factory.mktemp("repos")
    cache = Path(tempfile.mkdtemp(prefix="abc-", dir="/tmp"))
    commit = git_repos.make_repo(root, "app", APP)
    with GitServer(root) as server:
        lanes = Lanes({"url": f"{server.url}/app", "commit": commit, "cache": str(cache)})
        try:
            built = lanes.play(plans.Plan(seed="build", local=True, patience=BUILD_SECONDS,
                                          settings={"build_minutes": BUILD_SECONDS / 60}))  # fmt: skip
            assert built.faults == [], str(built)
            yield lanes
        finally:
            lanes.close()
            shutil.rmtree(cache)


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, local_lanes: Lanes) -> dict[int, Future[Outcome]]:
    """All of them under way."""
    return {seed: local_lanes.submit(plans.drawn(seed, local=True)) for seed in seeds_of(request, "local_seed")}


@pytest.mark.timeout(2 * BUILD_SECONDS)  # the first one waits for the environment
def test_every_launch_on_this_computer_comes_to_an_end_and_nothing_is_left(
    local_seed: int, outcomes: dict[int, Future[Outcome]]
) -> None:
    outcome = outcomes[local_seed].result()
    assert outcome.faults == [], str(outcome)
