"""One build: the repository's files, repo2docker over them, and a sentence where it fails.

Everything it puts on this computer lies in one folder of the session's, and goes with it. The engine's command gets a
configuration of its own: with the person's, a Dockerfile's FROM would be pulled with the person's logins.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from broker.environments import cache, engines, fetching, network, programs, wishes
from broker.environments.programs import Failed, tell
from broker.environments.transcript import Transcript

PODMAN_LEAVES_THE_FENCE = (4, 5)  # the first whose builds know --network in a step
READ = (
    "Dockerfile", "Dockerfile.dockerignore", ".dockerignore", ".containerignore", "environment.yml", "environment.yaml",
    "requirements.txt", "requirements3.txt", "runtime.txt", "apt.txt", "postBuild", "start", "install.R", "DESCRIPTION",
    "Project.toml", "JuliaProject.toml", "Manifest.toml", "REQUIRE", "default.nix", "Pipfile", "Pipfile.lock",
    "setup.py", "pyproject.toml",
)  # fmt: skip
"""What is read on this computer, outside of any container: a link there could show a file of the person's."""


def build(spec: dict[str, Any], *, name: str, key: str, labels: dict[str, str]) -> None:
    """Build the image and name it so. Raises Failed; then there is no image. Leaves no file behind unless it is killed, and
    then only in the session's folder. The engine stops building when this process or its group is ended."""
    work = Path(spec["home"]) / "build"
    if work.exists():
        cache.remove(work)
    try:
        for folder in ("home", "tmp", "docker"):
            (work / folder).mkdir(mode=0o700, parents=True)
        fetching.fetch(spec, work / "tree")
        check_links(work / "tree", spec.get("subdir") or "")
        check_recipe(work / "tree", spec.get("subdir") or "", spec["engine"])
        network.before_build(spec["engine"])
        run(work, spec, {"name": name, "key": key, "labels": labels})
    finally:
        if work.exists():
            cache.remove(work)


def check_links(tree: Path, subdir: str) -> None:
    """Raises Failed where a file that is read here is a link that leads out of the repository."""
    root = wishes.within(tree, tree / subdir)
    if not root.is_dir():
        raise Failed(f"There is no folder {subdir} in the repository.")
    folder = wishes.binder_folder(root)
    for file in READ:
        for place in {folder, root}:
            wishes.file_in(root, place / file)


def check_recipe(tree: Path, subdir: str, engine: dict[str, Any]) -> None:
    """Raises Failed where a Dockerfile, or an image that it begins with, could have a step run in this computer's own
    network (`RUN --network=host`): Docker's client has to allow that, Podman's cannot forbid it."""
    root = tree / subdir
    if (
        engine["kind"] != "podman"
        or engine["network"] == "open"
        or not (wishes.binder_folder(root) / "Dockerfile").exists()
    ):
        return
    with engines.client(engine) as client:
        version = tuple(int(part) for part in re.findall(r"\d+", str(client.version().get("Version")))[:2])
    if version >= PODMAN_LEAVES_THE_FENCE:
        raise Failed(
            "Here a Dockerfile is not built: Podman would let it reach the network of the computer that it is built on. "
            "Use requirements.txt or another of repo2docker's files, or a backend with Docker."
        )


def run(work: Path, spec: dict[str, Any], image: dict[str, Any]) -> None:
    """Raises Failed where it does not end well."""
    from importlib import metadata

    engine, began = spec["engine"], time.monotonic()
    order = {
        **image,
        "tree": str(work / "tree"),
        "subdir": spec.get("subdir") or "",
        "commit": spec["commit"],
        "base_image": engine["base_image"],
        "builder": engine.get("builder") or "uv",
        "kind": engine["kind"],
        "downloads": bool(spec.get("python_downloads")),
        "uv_version": metadata.version("uv"),
        "parent": os.getpid(),
    }
    (work / "order.json").write_text(json.dumps(order))
    env = environment(work, engine)
    check_command(work, engine["kind"], env)
    tell("building", "Building the image")
    transcript = Transcript(programs.Plain("building"))
    command = [sys.executable, "-I", str(Path(__file__).parent), "--image", str(work / "order.json")]
    status, _last = programs.run(command, env=env, cwd=work, show=transcript)
    if status:
        raise Failed(transcript.sentence())
    tell("building", f"Built in {time.monotonic() - began:.0f} s")


def check_command(work: Path, kind: str, env: dict[str, str]) -> None:
    """Raises Failed where the engine's command cannot build as repo2docker has it build."""
    words = [kind, "buildx", "version"] if kind == "docker" else [kind, "--remote", "version"]
    try:
        status, last = programs.run(words, env=env, cwd=work, show=None)
    except OSError:
        raise Failed(
            f"Images are built with the command {kind}, which this backend's computer does not have."
        ) from None
    if status and kind == "docker":
        raise Failed("Images are built with “docker buildx”. Whoever runs this backend should install that plugin.")
    if status:
        raise Failed(f"The command {kind} does not reach its engine: {programs.last_words(last)}")


def environment(work: Path, engine: dict[str, Any]) -> dict[str, str]:
    """What the engine's command sees: the engine, an empty configuration, and nobody's secrets."""
    (work / "docker/config.json").write_text(json.dumps(configuration(engine)))
    return {
        **programs.environment(),
        "HOME": str(work / "home"),
        "TMPDIR": str(work / "tmp"),
        "DOCKER_CONFIG": str(work / "docker"),
        "DOCKER_HOST": engine["url"],
        "CONTAINER_HOST": engine["url"],  # podman's name for it
        "DOCKER_BUILDKIT": "1",
        "BUILDX_BUILDER": "default",  # the engine's own, whatever this person builds with otherwise
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",  # an image, not a list of one image and a paper about it
        "PYTHONUNBUFFERED": "1",
    }


def configuration(engine: dict[str, Any]) -> dict[str, Any]:
    """Where the plugins are, and the proxies that containers shall use; no logins."""
    own = programs.docker_config(engine)
    try:
        told = json.loads((own / "config.json").read_text())
    except (OSError, ValueError):
        told = {}
    plugins = [str(own / "cli-plugins"), *told.get("cliPluginsExtraDirs", [])]
    return {"cliPluginsExtraDirs": plugins, **({"proxies": told["proxies"]} if "proxies" in told else {})}
