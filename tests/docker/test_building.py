"""Images built by repo2docker on a real engine, from real repositories: what is in them, and what is left of those that fail.

The builder runs as it does beside an agent: a process of its own that is given a file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from broker.environments import images
from tests.doubles.git_repos import make_repo
from tests.doubles.git_server import GitServer
from tests.servers.docker import Engine
from tests.waiting import until

pytestmark = pytest.mark.timeout(300)
FOLDER = Path(images.__file__).parent
FULL = {
    "requirements.txt": "tabulate==0.9.0  # a comment\n",
    "apt.txt": "# a comment\nfiglet\n",
    "runtime.txt": "python-3.11\n",
    "postBuild": "#!/bin/bash -l\nset -e\nenv > environment.txt\nwhich python figlet > built.txt\n",
    "start": '#!/bin/bash\nexport STARTED=yes\nexec "$@"\n',
}
SECRET = "not-for-builds"


class Run:
    """A builder at work: what it says comes to `events`."""

    def __init__(self, spec: dict[str, Any], engine: Engine) -> None:
        self.spec = spec
        self.events: list[dict[str, Any]] = []
        path = Path(spec["home"]) / "spec.json"
        key = spec.pop("key", None)
        path.write_text(json.dumps({**spec, "keyed": key is not None}))
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(FOLDER), str(path)],
            env={**os.environ, **engine.environment, "ANYBINDER_SECRET": SECRET},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        with self.process.stdin as given:
            given.write(json.dumps(key))
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self.events.extend(json.loads(line) for line in lines)

    def said(self, phase: str) -> list[str]:
        return [event["message"] for event in self.events if event["phase"] == phase]

    def says(self, text: str) -> bool:
        return any(text in event["message"] for event in list(self.events))

    def end(self) -> Run:
        self._reader.join()
        self.process.wait()
        return self

    @property
    def image(self) -> str:
        assert self.events[-1]["phase"] == "built", self.events[-3:]
        return str(self.events[-1]["image"])

    @property
    def failure(self) -> str:
        assert self.events[-1]["phase"] == "failed", self.events[-3:]
        return str(self.events[-1]["message"])


class Yard:
    """Repositories behind a web server, and builders for them."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.folder, self.engine = folder, engine
        (folder / "repos").mkdir()
        self.server = GitServer(folder / "repos")
        self.more: dict[str, Any] = {}

    def spec(self, files: dict[str, str | bytes], name: str = "o/r", **more: Any) -> dict[str, Any]:
        commit = make_repo(self.folder / "repos", f"{name}.git", files)
        return {
            "repo_url": f"{self.server.url}/{name}.git",
            "commit": commit,
            "title": name,
            "subdir": "",
            "build_seconds": 300,
            "clone_megabytes": 50,
            "home": tempfile.mkdtemp(dir=self.folder),
            "cache": str(self.folder / "cache"),
            "runtime": str(self.folder),
            "build_only": True,
            "engine": {
                "kind": "docker",
                "url": self.engine.url,
                "base_image": self.engine.base_image,
                "builder": "uv",
                "network": "open",
                "registry": "",
                "labels": {"anybinder-order": "o1"},
                **self.more,
            },
            **more,
        }

    def start(self, spec: dict[str, Any]) -> Run:
        return Run({**spec, "home": tempfile.mkdtemp(dir=self.folder)}, self.engine)

    def build(self, files: dict[str, str | bytes], **more: Any) -> Run:
        return self.start(self.spec(files, **more)).end()

    def inside(self, image: str, command: str) -> str:
        return self.engine.docker("run", "--rm", "--network=none", image, "bash", "-c", command)

    def tags(self) -> list[str]:
        listed = self.engine.docker(
            "images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "label=org.anybinder.key"
        )
        return [tag for tag in listed.split() if "<none>" not in tag]

    def close(self) -> None:
        """Layers stay, so that the next test builds on them."""
        self.server.close()
        for tag in self.tags():
            self.engine.docker("rmi", "--force", "--no-prune", tag, check=False)

    def labels(self, image: str) -> dict[str, str]:
        return json.loads(self.engine.docker("image", "inspect", image, "--format", "{{json .Config.Labels}}"))


@pytest.fixture
def yard(tmp_path: Path, engine: Engine) -> Iterator[Yard]:
    made = Yard(tmp_path, engine)
    yield made
    made.close()


def test_a_private_repository_is_built_with_a_key_that_no_layer_has_into_an_image_that_nobody_can_name(yard):
    """Nor is it handed to the registry that backends share."""
    secret, files = "the-canary-secret-of-ada", {"requirements.txt": "", "README.md": "nobody's business"}
    yard.server.private.add("o/r")
    yard.server.rights[secret] = {"o/r"}
    key = {"origin": yard.server.url, "user": "oauth2", "secret": secret}
    spec = yard.spec(files, private="ada", key=key)
    run = yard.start(spec).end()
    assert "nobody's business" in yard.inside(run.image, "cat README.md")
    inside = yard.inside(run.image, f"grep -rls {secret} / --exclude-dir=proc --exclude-dir=sys; env; cat .git/config")
    told = yard.engine.docker("image", "inspect", run.image) + yard.engine.docker("history", "--no-trunc", run.image)
    assert secret not in inside + told + json.dumps(run.events)
    assert not [path for path in yard.folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert yard.start(spec).end().image == run.image  # found again by who has the right to it
    stranger = yard.start({**{name: spec[name] for name in spec if name != "key"}, "private": ""}).end()
    assert "does not" in stranger.failure or "fetched" in stranger.failure


def leftovers(run: Run) -> list[str]:
    """What lies in the session's folder besides."""
    return sorted(path.name for path in Path(run.spec["home"]).iterdir())


def test_every_file_of_a_python_repository_has_its_say_and_the_same_commit_is_not_built_twice(yard):
    spec = yard.spec(FULL)
    first = yard.start(spec).end()
    inside = yard.inside(
        first.image,
        "python -c 'import tabulate, sys; print(tabulate.__version__, sys.version_info[:2])'; cat built.txt; "
        "echo $STARTED; id -un; pwd; command -v jupyter-lab; mkdir -p .cache/mine && echo own; cat environment.txt",
    )
    for expected in (
        "0.9.0 (3, 11)",
        "/srv/venv/bin/python\n/usr/bin/figlet\nyes\njovyan\n/home/jovyan\n/srv/venv/bin",
    ):
        assert expected in inside
    assert "own" in inside.splitlines()
    assert SECRET not in inside + json.dumps(first.events)
    assert {event["phase"] for event in first.events} == {"fetching", "building", "built"}
    labels = yard.labels(first.image)
    assert labels["org.anybinder.commit"] == spec["commit"]
    assert labels["org.anybinder.repo"] == spec["repo_url"]
    assert leftovers(first) == []

    began = time.monotonic()
    again = yard.start(spec).end()
    print(f"found again in {time.monotonic() - began:.2f} s")
    assert again.image == first.image
    assert [event["message"] for event in again.events] == [
        f"Commit {spec['commit'][:12]} of o/r has been built before",
        "The image is ready",
    ]

    served = yard.start({**spec, "build_only": False}).end()
    run = json.loads(Path(served.events[-1]["server"]["argv"][-1]).read_text())
    assert run["command"][:2] == ["jupyter-lab", "--no-browser"]


def test_a_package_and_requirements_that_name_files_are_installed_from_the_whole_repository(yard):
    project = '[project]\nname = "mine"\nversion = "7"\nrequires-python = ">=3.9"\n[build-system]\nrequires = ["setuptools"]\n'
    built = yard.build(
        {"pyproject.toml": project, "mine.py": "", "requirements.txt": "-r more.txt\n", "more.txt": "tabulate"}
    )
    assert "mine" in yard.inside(built.image, "cd / && python -c 'import mine, tabulate; print(mine.__name__)'")


def test_a_pipfile_is_installed_without_conda(yard):
    text = "[packages]\ntabulate = '==0.9.0'\n"
    lock = {
        "_meta": {
            "hash": {"sha256": "0" * 64},
            "pipfile-spec": 6,
            "requires": {"python_version": "3.11"},
            "sources": [],
        },
        "default": {"tabulate": {"version": "==0.9.0"}},
        "develop": {},
    }
    built = yard.build({"binder/Pipfile": text, "binder/Pipfile.lock": json.dumps(lock)})
    assert yard.inside(built.image, "python -c 'import tabulate; print(tabulate.__version__)'").endswith("0.9.0")


def test_a_dockerfile_is_built_as_it_stands(yard):
    text = f'FROM {yard.engine.base_image}\nARG NB_USER\nRUN echo for $NB_USER > /made\nCMD ["python3", "-m", "http.server"]\n'
    built = yard.build({"Dockerfile": text, "requirements.txt": "no-such-package-at-all"})
    assert yard.inside(built.image, "cat /made").endswith("for jovyan")
    assert yard.labels(built.image)["org.anybinder.builder"] == f"uv {images.BUILDER}"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"postBuild": "#!/bin/bash\necho about to\nexit 3\n"},
            "postBuild failed (exit status 3). Its last lines: about to",
        ),
        ({"requirements.txt": "tabulate==99\n"}, "there is no version of tabulate==99"),
        ({"runtime.txt": "python-3.4\n"}, "runtime.txt asks for Python 3.4, which the base image does not have. It has 3.11"),
        ({"apt.txt": "no-such-thing\n"}, "The system packages cannot be installed: Unable to locate package no-such-thing"),
        ({"Dockerfile": "FROM\n"}, "dockerfile parse error"),
        ({"Dockerfile": "FROM scratch\nCOPY nothing /\n"}, "The image could not be built: "),
        ({"environment.yml": "- a list\n"}, "environment.yml should contain a dictionary"),
        ({"binder/x": "", ".binder/x": ""}, "The repository has both a binder and a .binder folder"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_build_that_fails_is_a_sentence_and_leaves_nothing(yard, files, sentence):
    failed = yard.build(files)
    assert sentence in failed.failure
    assert failed.process.returncode == 1
    assert yard.tags() == []
    assert leftovers(failed) == []


def test_two_who_want_the_same_get_one_build_and_both_every_line_of_it(yard):
    spec = yard.spec({"postBuild": "#!/bin/bash\nfor i in 1 2 3 4 5 6 7 8 9; do echo line $i; sleep 0.3; done\n"})
    first = yard.start(spec)
    until(lambda: first.says("Building the image"), seconds=60, what="it builds")
    second = yard.start(spec)
    assert first.end().image == second.end().image
    steps = [line for line in first.said("building") if line.startswith("line ")]
    assert steps == [f"line {number}" for number in range(1, 10)]
    assert first.said("building") == second.said("building")[1:]
    assert "being built for another session" in second.said("building")[0]


def test_two_who_want_what_cannot_be_built_fail_by_one_build(yard):
    spec = yard.spec({"postBuild": "#!/bin/bash\necho trying\nsleep 4\nexit 5\n"})
    first = yard.start(spec)
    until(lambda: first.says("trying"), seconds=100, what="postBuild runs")
    second = yard.start(spec)
    assert first.end().failure == second.end().failure
    assert not Path(second.spec["home"], "build").exists()


def test_a_builder_that_is_killed_leaves_no_build_running_no_image_and_no_lock(yard):
    spec = yard.spec({"postBuild": "#!/bin/bash\necho asleep\nexec sleep 98765\n"})
    for _ in range(2):  # the second could not, were the lock still held
        killed = yard.start(spec)
        until(lambda run=killed: run.says("asleep"), seconds=100, what="postBuild runs")
        killed.process.kill()
        killed.end()
        until(lambda: not asleep(), seconds=30, what="the engine gives the build up")
    assert yard.tags() == []


def asleep() -> list[int]:
    return [each.pid for each in psutil.process_iter(["cmdline"]) if "98765" in (each.info["cmdline"] or [])]


@pytest.mark.parametrize("file", ["Dockerfile", "binder/apt.txt", "environment.yml"])
def test_a_file_that_is_a_link_to_one_of_this_computer_is_not_read(yard, file, tmp_path):
    spec = yard.spec({"binder/x": "", "x": ""} if "/" in file else {"x": ""})
    bare = tmp_path / "repos/o/r.git"
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(bare), str(clone)], check=True)
    (clone / file).symlink_to("/etc/passwd")
    for words in (["add", "."], ["commit", "--quiet", "-m", "x"], ["push", "--quiet"]):
        subprocess.run(["git", "-C", str(clone), *words], check=True)
    head = subprocess.run(["git", "-C", str(clone), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    failed = yard.start({**spec, "commit": head.stdout.strip()}).end()
    assert failed.failure == f"{Path(file).name} is a link that leads out of the repository."


def test_an_engine_that_is_not_there_is_a_sentence(yard):
    yard.more = {"url": "unix:///nowhere/docker.sock"}
    assert "The container engine does not answer at unix:///nowhere/docker.sock" in yard.build({"x": ""}).failure


def test_a_base_image_that_is_nowhere_is_a_sentence(yard):
    yard.more = {"base_image": "127.0.0.1:9/no/base:1"}
    assert (
        "The base image 127.0.0.1:9/no/base:1 is not on this engine and cannot be fetched"
        in yard.build({"x": ""}).failure
    )


def test_a_docker_without_the_plugin_that_builds_is_a_sentence(yard, tmp_path):
    yard.more = {"config": str(tmp_path / "empty")}
    assert "Images are built with “docker buildx”" in yard.build({"x": ""}).failure
