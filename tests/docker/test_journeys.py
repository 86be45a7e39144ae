"""Binder links to repositories that need containers, followed in a real Chromium, through the gateway, on a real engine."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from broker import repos
from tests.browser import shared
from tests.browser.conftest import IMAGES
from tests.browser.shared import World
from tests.docker.conftest import SCREENSHOTS
from tests.doubles import confined_local
from tests.journeys.conftest import compute
from tests.servers import docker, registry

pytestmark = pytest.mark.timeout(600)
INSTALL_MS = 400_000  # R from Debian's packages, on a slow mirror

WEB_APP = {
    "Dockerfile": "FROM {base}\nCOPY app.py /app.py\nEXPOSE 8080\nCMD python3 /app.py\n",
    "app.py": (
        "import http.server\n"
        "class App(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        body = b'<!doctype html><title>app</title><h1>hello from ' + self.path.encode() + b'</h1>'\n"
        "        self.send_response(200); self.send_header('content-type', 'text/html')\n"
        "        self.send_header('content-length', str(len(body))); self.end_headers()\n"
        "        self.wfile.write(body)\n"
        "http.server.ThreadingHTTPServer(('', 8080), App).serve_forever()\n"
    ),
}
SHINY = {
    "Dockerfile": (
        "FROM {base}\n"
        "RUN apt-get update && apt-get install --yes --no-install-recommends r-cran-shiny\n"
        "COPY app.R /srv/app.R\n"
        "USER nobody\n"
        "EXPOSE 3838\n"
        """CMD ["Rscript", "-e", "shiny::runApp('/srv/app.R', host = '0.0.0.0', port = 3838)"]\n"""
    ),
    "app.R": (
        "library(shiny)\n"
        "ui <- fluidPage(titlePanel('Squares'), numericInput('n', 'Number', 3), textOutput('square'))\n"
        "server <- function(input, output) {\n"
        "  output$square <- renderText(paste('Its square is', input$n^2))\n"
        "}\n"
        "shinyApp(ui, server)\n"
    ),
}
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
EMPTY = json.dumps({"cells": [], "metadata": KERNEL, "nbformat": 4, "nbformat_minor": 5})
NOTEBOOKS = {"requirements.txt": "tabulate==0.9.0\n", "index.ipynb": EMPTY}


@pytest.fixture(scope="module")
def world(engine: docker.Engine, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A hub for Binder links: visitors run in containers of this computer."""
    folder = tmp_path_factory.mktemp("hub")
    backend = {
        "name": "containers",
        "provider": "local",
        "max_sessions": 3,
        "configuration": {
            "engine": "docker",
            "engine_url": engine.url,
            "engine_config": str(engine.config),
            "base_image": engine.base_image,
        },
        "resources": {"memory_mb": 600},
    }
    told = {"ANYBINDER_BACKENDS": json.dumps([backend]), "ANYBINDER_BINDER_BACKEND": "containers"}
    environment = told | {"ANYBINDER_RATE_LIMIT": "0"}
    with shared.running(browser, folder, environment) as made:
        yield made
        confined_local.end_all(made.broker.home)


@pytest.fixture
def visitor(world: World) -> Iterator[Page]:
    """Somebody who has only the link. What they launched ends with the test."""
    with world.visitor() as context:
        yield context.new_page()
    confined_local.end_all(world.broker.home)


def spec(world: World, engine: docker.Engine, name: str, files: dict[str, str]) -> str:
    made = {path: text.replace("{base}", engine.base_image) for path, text in files.items()}
    return f"git/{quote(world.repository(name, made), safe='')}/main"


def arrive(page: Page, path: str = "/") -> None:
    page.wait_for_url(re.compile(rf"^http://\w{{12}}\.localhost:\d+{path}"), timeout=INSTALL_MS)


def picture(page: Page, name: str) -> None:
    if SCREENSHOTS:
        IMAGES.mkdir(exist_ok=True)
        page.screenshot(path=IMAGES / f"{name}.png", animations="disabled")


def build(world: World, wanted: str) -> dict[str, Any]:
    """What a script gets from `/build`: its last event."""
    headers = {"Accept": "text/event-stream"}
    with httpx.stream("GET", f"{world.url}/build/{wanted}", headers=headers, timeout=400) as stream:
        events = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    return events[-1]


def test_a_plain_web_app_is_opened_by_its_link(world: World, engine: docker.Engine, visitor: Page) -> None:
    visitor.goto(f"{world.url}/v2/{spec(world, engine, 'web', WEB_APP)}?urlpath=some/page")
    arrive(visitor, "/some/page")
    expect(visitor.get_by_role("heading", name="hello from /some/page")).to_be_visible()
    picture(visitor, "container-web-app")


def test_shiny_for_r_reacts_to_what_is_typed(world: World, engine: docker.Engine, visitor: Page) -> None:
    visitor.goto(f"{world.url}/v2/{spec(world, engine, 'shiny', SHINY)}")
    arrive(visitor)
    expect(visitor.get_by_text("Its square is 9")).to_be_visible(timeout=30_000)
    visitor.get_by_label("Number").fill("12")
    expect(visitor.get_by_text("Its square is 144")).to_be_visible(timeout=30_000)
    picture(visitor, "container-shiny-r")


def test_a_python_repository_becomes_jupyterlab_in_a_container(
    world: World, engine: docker.Engine, visitor: Page
) -> None:
    wanted = spec(world, engine, "notebooks", NOTEBOOKS)
    visitor.goto(f"{world.url}/v2/{wanted}?labpath=index.ipynb")
    arrive(visitor)
    expect(visitor.locator(".jp-NotebookPanel")).to_be_visible(timeout=60_000)
    picture(visitor, "container-jupyterlab")
    ready = build(world, wanted)
    assert ready["phase"] == "ready", ready
    code = "import os, tabulate; print(os.getuid(), tabulate.__version__, os.environ['BINDER_REQUEST'])"
    assert compute(ready, code) == f"1000 0.9.0 v2/{wanted}\n"
    assert ready["image"].partition(":")[0].startswith("anybinder/"), ready
    compute(ready, "open('made here.txt', 'w').write('mine')")
    headers = {"Authorization": f"Bearer {ready['token']}"}
    taken = httpx.get(f"{world.url}/api/launches/{ready['launch']}/archive", headers=headers, timeout=60)
    assert taken.status_code == 200, taken.text
    found = zipfile.ZipFile(io.BytesIO(taken.content))
    assert {name.partition("/")[2] for name in found.namelist()} >= {"index.ipynb", "requirements.txt", "made here.txt"}


def test_an_image_by_name_is_run_without_a_build(world: World, engine: docker.Engine, visitor: Page) -> None:
    with registry.running() as shop:
        name = f"{shop.host}/team/app:1"
        dockerfile = f"FROM {engine.base_image}\nEXPOSE 9000\nCMD cd /etc && python3 -m http.server 9000\n"
        engine.docker("tag", engine.build(dockerfile, name="served"), name)
        engine.docker("push", "--quiet", name)
        engine.docker("rmi", name)
        wanted = str(repos.RepoSpec.parse(f"docker://{name}"))
        visitor.goto(f"{world.url}/v2/{wanted}")
        arrive(visitor)
        expect(visitor.get_by_role("heading", name="Directory listing for /")).to_be_visible()
        ready = build(world, wanted)
    assert ready["phase"] == "ready", ready
    assert "@sha256:" in ready["binder_persistent_request"]
    answer = httpx.get(f"{ready['url']}debian_version", params={"token": ready["token"]}, follow_redirects=True)
    assert answer.text.startswith("12")


def test_many_who_want_one_new_commit_get_one_build_and_wait_their_turn(world: World, engine: docker.Engine) -> None:
    """Three seats, nine visitors: those who come in leave again, and all streams come to their end."""
    wanted = spec(world, engine, "crowd", {**WEB_APP, "README.md": "one of many"})

    def visit(_number: int) -> dict[str, Any]:
        ready = build(world, wanted)
        assert ready["phase"] == "ready", ready
        headers = {"Authorization": f"Bearer {ready['token']}"}
        httpx.delete(f"{world.url}/api/launches/{ready['launch']}", headers=headers, timeout=30).raise_for_status()
        return ready

    before = images(engine)
    with ThreadPoolExecutor(9) as visitors:
        launched = list(visitors.map(visit, range(9)))
    assert len({ready["launch"] for ready in launched}) == 9
    assert len({ready["image"] for ready in launched}) == 1
    assert len(images(engine) - before) == 1
    confined_local.end_all(world.broker.home)


def images(engine: docker.Engine) -> set[str]:
    return set(
        engine.docker("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "label=org.anybinder.key").split()
    )
