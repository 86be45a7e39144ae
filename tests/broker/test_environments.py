"""The builder: what it refuses, what it builds, what it keeps, and what a session may not reach.

Packages come from the index as `uv` finds it; but for two tests, environments hold nothing more than pip and six.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.sync.client import connect as websocket

from broker import agent
from broker.environments import cache, fetching, installing, programs, session, wishes
from tests.doubles.broker_double import ENROLMENT_TOKEN, SERVER_TOKEN, BrokerDouble, Leg
from tests.doubles.git_repos import QUIET, add_commit, make_repo
from tests.doubles.git_server import GitServer
from tests.waiting import until

FOLDER = Path(cache.__file__).parent
OWN_PYTHON = ".".join(map(str, sys.version_info[:2]))
PACKAGE = """
[project]
name = "mine"
version = "1"
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
"""


class Workshop:
    """A cache, repositories behind a web server, and sessions to build for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.repos = folder, folder / "repos"
        self.repos.mkdir()
        self.server = GitServer(self.repos)
        self.runtimes: list[Path] = []

    def repo(self, files: dict[str, str | bytes], name: str = "o/r.git") -> str:
        return make_repo(self.repos, name, files)

    def spec(self, commit: str, **more: Any) -> dict[str, Any]:
        home = Path(tempfile.mkdtemp(dir=self.folder))
        self.runtimes.append(Path(tempfile.mkdtemp(prefix="ab-")))
        return {
            "repo_url": f"{self.server.url}/o/r.git",
            "commit": commit,
            "title": "o/r",
            "subdir": "",
            "build_seconds": 600,
            "clone_megabytes": 50,
            "busy_hours": 24,
            "home": str(home),
            "cache": str(self.folder / "cache"),
            "runtime": str(self.runtimes[-1]),
            "python_downloads": False,
            **more,
        }

    def build(self, files: dict[str, str | bytes], **more: Any) -> tuple[Path, dict[str, Any]]:
        spec = self.spec(self.repo(files), **more)
        return cache.build(spec), spec

    def close(self) -> None:
        self.server.close()
        for runtime in self.runtimes:
            shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    made = Workshop(tmp_path)
    yield made
    made.close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments without Jupyter, for what is not about Jupyter."""
    monkeypatch.setattr(installing, "BASE", ("pip",))


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """What the agent has been told so far."""
    lines: list[str] = []

    def read() -> list[str]:
        lines.extend(json.loads(line)["message"] for line in capsys.readouterr().out.splitlines())
        return lines

    return read


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def refusal(root: Path) -> str:
    with pytest.raises(programs.Failed) as failure:
        wishes.read_repository(root)
    return str(failure.value)


# What files mean


def test_without_any_file_it_is_a_plain_jupyter(tmp_path):
    wish = wishes.read_repository(tmp_path)
    assert (wish.requirements, wish.project, wish.python, wish.post_build, wish.start) == (
        None,
        False,
        None,
        None,
        None,
    )


def test_the_root_counts_where_there_is_no_binder_folder(tmp_path):
    write(tmp_path, {"requirements.txt": "", "postBuild": "", "start": "", "runtime.txt": "python-3.10\n"})
    wish = wishes.read_repository(tmp_path)
    assert wish.requirements == tmp_path / "requirements.txt"
    assert wish.post_build and wish.start
    assert wish.python == "3.10"


@pytest.mark.parametrize("folder", ["binder", ".binder"])
def test_a_binder_folder_hides_the_root(tmp_path, folder):
    root = {"requirements.txt": "", "apt.txt": "vim", "setup.py": "", "DESCRIPTION": "", "Dockerfile": "", "start": ""}
    write(tmp_path, {**root, f"{folder}/requirements.txt": "six"})
    wish = wishes.read_repository(tmp_path)
    assert wish.requirements == tmp_path / folder / "requirements.txt"
    assert not wish.project
    assert wish.start is None


def test_two_binder_folders_are_refused(tmp_path):
    write(tmp_path, {"binder/x": "", ".binder/x": ""})
    assert refusal(tmp_path) == "The repository has both a binder and a .binder folder; it must have one of them only."


@pytest.mark.parametrize(
    ("file", "need"),
    [*wishes.NEEDS, ("DESCRIPTION", "R"), ("binder/environment.yml", "conda"), ("binder/apt.txt", "system packages")],
)
def test_what_needs_containers_is_refused_by_name(tmp_path, file, need):
    write(tmp_path, {"requirements.txt": "six", file: "something\n"})
    assert refusal(tmp_path) == (
        f"{file} asks for {need}. This backend builds Python environments only: choose one with containers."
    )


def test_an_apt_txt_that_asks_for_nothing_is_no_reason_to_refuse(tmp_path):
    write(tmp_path, {"apt.txt": "# vim\n\n"})
    assert wishes.read_repository(tmp_path)


@pytest.mark.parametrize(
    ("text", "python"),
    [("python-3.12", "3.12"), ("python-3.11.7\n", "3.11.7"), ("python-3", None), ("python-2024-01-31", None)],
)
def test_runtime_txt_names_the_python(tmp_path, text, python):
    assert wishes.read_repository(write(tmp_path, {"runtime.txt": text})).python == python


def test_a_runtime_txt_for_r_or_nonsense_is_refused(tmp_path):
    assert "asks for R" in refusal(write(tmp_path, {"runtime.txt": "r-4.2-2023-01-01"}))
    assert "must say something like python-3.11; it says 'three'" in refusal(write(tmp_path, {"runtime.txt": "three"}))


def test_a_package_is_installed_where_it_can_be_and_names_its_pythons(tmp_path):
    project = '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.9"\n'
    wish = wishes.read_repository(write(tmp_path, {"pyproject.toml": project}))
    assert (wish.project, wish.python) == (False, ">=3.9")
    built = project + '[build-system]\nrequires = ["setuptools"]\n'
    assert wishes.read_repository(write(tmp_path, {"pyproject.toml": built})).project
    assert "pyproject.toml cannot be read" in refusal(write(tmp_path, {"pyproject.toml": "["}))


@pytest.mark.parametrize("name", ["requirements.txt", "binder", "postBuild", "runtime.txt"])
def test_links_that_lead_out_of_the_repository_are_refused(tmp_path, name):
    outside = write(tmp_path / "outside", {"file": "secret"})
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / name).symlink_to(outside if name == "binder" else outside / "file")
    assert refusal(tmp_path / "root") == f"{name} is a link that leads out of the repository."


# Fetching


def fetched(workshop: Workshop, commit: str, **more: Any) -> Path:
    spec = workshop.spec(commit, **more)
    (Path(spec["home"]) / "home").mkdir()
    fetching.fetch(spec, Path(spec["home"]) / "tree")
    return Path(spec["home"]) / "tree"


def test_an_older_commit_is_fetched_alone_from_a_server_that_allows_it(workshop):
    commit = workshop.repo({"a": "1"})
    add_commit(workshop.repos / "o/r.git", {"a": "2"})
    tree = fetched(workshop, commit)
    assert (tree / "a").read_text() == "1"
    assert (tree / ".git/shallow").exists()


@pytest.mark.parametrize("way", [{"smart": False}, {"protocol": 0}], ids=["dumb", "before 2018"])
def test_servers_that_do_not_hand_out_single_commits_are_asked_for_all(workshop, way):
    commit = workshop.repo({"a": "1"})
    add_commit(workshop.repos / "o/r.git", {"a": "2"})
    with GitServer(workshop.repos, **way) as server:
        tree = fetched(workshop, commit, repo_url=f"{server.url}/o/r.git")
    assert (tree / "a").read_text() == "1"


def test_a_commit_that_is_not_there_is_a_sentence(workshop):
    workshop.repo({"a": "1"})
    with pytest.raises(programs.Failed, match="Commit dddddddddddd could not be fetched"):
        fetched(workshop, "d" * 40)


@pytest.mark.parametrize(
    "url", ["ext::sh -c touch% x", "/etc", "file:///etc", "--upload-pack=x", "-x@h:p", "ftp://h/x"]
)
def test_only_ways_that_fetch_are_allowed(workshop, url):
    with pytest.raises(programs.Failed, match="must begin with https, http, git or ssh"):
        fetched(workshop, "d" * 40, repo_url=url)


def test_a_repository_that_brings_too_much_is_refused(workshop):
    commit = workshop.repo({"big": os.urandom(3_000_000)})
    with pytest.raises(programs.Failed, match="more than 2 MB"):
        fetched(workshop, commit, clone_megabytes=2)


def test_a_small_pack_that_would_unfold_too_far_is_refused(workshop):
    commit = workshop.repo({"zeros": bytes(20_000_000)})
    with pytest.raises(programs.Failed, match="The repository's files have more than 2 MB"):
        fetched(workshop, commit, clone_megabytes=2)


def test_credentials_are_neither_said_nor_kept(workshop, said):
    commit = workshop.repo({"a": "1"})
    workshop.server.require = ("ada", "s3cret")
    address = workshop.server.url.replace("http://", "http://ada:s3cret@") + "/o/r.git"
    tree = fetched(workshop, commit, repo_url=address)
    assert "s3cret" not in (tree / ".git/config").read_text() + (tree / ".git/FETCH_HEAD").read_text()
    with pytest.raises(programs.Failed) as failure:
        fetched(workshop, "d" * 40, repo_url=address)
    assert "s3cret" not in str(failure.value) + str(said())


def test_a_password_that_is_wanted_is_not_asked_for(workshop):
    commit = workshop.repo({"a": "1"})
    workshop.server.require = ("ada", "s3cret")
    with pytest.raises(programs.Failed, match="could not be fetched"):
        fetched(workshop, commit)


def worktree(folder: Path) -> str:
    """Commit what is in this folder."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=folder, env=QUIET, check=True, capture_output=True, text=True
        ).stdout

    for arguments in (("init", "--quiet"), ("add", "-A"), ("commit", "--quiet", "-m", "x")):
        git(*arguments)
    return git("rev-parse", "HEAD").strip()


def test_a_hostile_tree_is_copied_as_it_is_and_nothing_follows_its_links(workshop, small, tmp_path, said):
    source = tmp_path / "source"
    source.mkdir()
    (tmp_path / "secret").write_text("s3cret")
    (source / "passwd").symlink_to("/etc/passwd")
    (source / "out").symlink_to("../../../../..")
    (source / "\x1b[31m\n\x07").write_text("odd")
    (source / "-rf").write_text("odd")
    spec = workshop.spec(worktree(source), repo_url=str(source), allow_file=True)
    server = session.prepare(spec, cache.build(spec))
    repo = Path(server["cwd"])
    assert (repo / "passwd").is_symlink() and (repo / "out").is_symlink()
    assert (repo / "\x1b[31m\n\x07").read_text() == "odd"
    assert (repo / "-rf").read_text() == "odd"


def test_submodules_come_along(workshop, tmp_path):
    workshop.repo({"inner": "yes"}, "o/sub.git")
    source = tmp_path / "source"
    source.mkdir()
    worktree(write(source, {"a": "1"}))
    command = ["git", "submodule", "--quiet", "add", f"{workshop.server.url}/o/sub.git", "sub"]
    subprocess.run(command, cwd=source, env=QUIET, check=True)
    commit = worktree(source)
    tree = fetched(workshop, commit, repo_url=str(source), allow_file=True)
    assert (tree / "sub/inner").read_text() == "yes"


# Building


def test_requirements_are_installed_with_the_base(workshop, small, said):
    place, _ = workshop.build({"requirements.txt": "six==1.16.0\n"})
    run = [str(place / "venv/bin/python"), "-c", "import six, pip; print(six.__version__)"]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == "1.16.0"
    assert any("six==1.16.0" in line for line in said())


def test_requirements_that_contradict_each_other_are_a_sentence(workshop, small):
    with pytest.raises(programs.Failed, match=r"The packages cannot be installed: .*six==1\.16\.0 and six==1\.15\.0"):
        workshop.build({"requirements.txt": "six==1.16.0\nsix==1.15.0\n"})


def test_a_repository_that_pins_part_of_the_base_gets_its_own(workshop, monkeypatch):
    monkeypatch.setattr(installing, "BASE", ("pip", "six>=1"))
    place, _ = workshop.build({"requirements.txt": "six==1.15.0\n"})
    assert list(place.glob("venv/lib/python3*/site-packages/six-1.15.0*"))


def test_a_python_that_is_not_here_is_refused_and_those_that_are_are_named(workshop, small):
    with pytest.raises(programs.Failed) as failure:
        workshop.build({"runtime.txt": "python-3.7.1\n"})
    assert str(failure.value).startswith(
        "runtime.txt asks for Python 3.7.1, which this computer does not have. It has "
    )
    assert OWN_PYTHON in str(failure.value)


def test_the_python_of_runtime_txt_is_taken_where_it_is_here(workshop, small):
    place, _ = workshop.build({"runtime.txt": f"python-{OWN_PYTHON}\n"})
    assert list((place / "venv/lib").glob(f"python{OWN_PYTHON}"))


def test_post_build_runs_in_the_working_tree_and_what_it_leaves_reaches_each_session(workshop, small, said):
    script = "echo building in $PWD with $(which python)\ntouch made ~/at-home $REPO_DIR/too\n"
    place, spec = workshop.build({"postBuild": script})
    server = session.prepare(spec, place)
    assert f"building in {place}/tree with {place}/venv/bin/python" in said()
    assert (Path(server["cwd"]) / "made").exists()
    assert (Path(server["cwd"]) / "too").exists()
    assert (Path(spec["home"]) / "home/at-home").exists()
    assert not Path("~/at-home").expanduser().exists()


def test_a_failing_post_build_fails_the_build_with_its_last_lines(workshop, small):
    with pytest.raises(programs.Failed, match=r"postBuild failed \(exit status 3\)\. Its last lines: one / two"):
        workshop.build({"postBuild": "#!/bin/sh\necho one\necho two >&2\nexit 3\n"})
    assert not list((workshop.folder / "cache").glob("*/ok.json"))


def test_post_build_sees_nothing_of_our_environment(workshop, small, said, monkeypatch):
    monkeypatch.setenv("A_SECRET_OF_OURS", "s3cret")
    workshop.build({"postBuild": "#!/bin/sh\nenv\n"})
    assert "s3cret" not in str(said())


def test_a_start_script_is_given_the_command_that_would_have_run(workshop, small):
    place, spec = workshop.build({"binder/start": '#!/bin/sh\nexec "$@"\n'})
    server = session.prepare(spec, place)
    start, python, *_ = server["argv"]
    assert start == f"{spec['home']}/repo/binder/start"
    assert os.access(start, os.X_OK)
    assert python == f"{spec['home']}/env/bin/python"


def test_a_subfolder_can_be_the_root(workshop, small):
    place, spec = workshop.build(
        {"apt.txt": "vim", "course/requirements.txt": "six", "course/start": "exit"}, subdir="course"
    )
    server = session.prepare(spec, place)
    assert server["cwd"] == f"{spec['home']}/repo/course"
    assert server["argv"][:2] == ["/bin/sh", f"{spec['home']}/repo/course/start"]
    with pytest.raises(programs.Failed, match="leads out of the repository"):
        cache.build(workshop.spec(spec["commit"], subdir="../.."))


# The cache


def test_the_second_launch_of_a_commit_starts_neither_git_nor_uv(workshop, small, monkeypatch):
    place, spec = workshop.build({"requirements.txt": "six\n"})
    workshop.server.close()
    monkeypatch.setattr(programs, "run", None)
    monkeypatch.setattr(fetching, "fetch", None)
    again = workshop.spec(spec["commit"])
    assert cache.found(again) == place
    assert session.prepare(again, place)["argv"]


def test_another_commit_is_another_environment(workshop, small):
    first, _ = workshop.build({"a": "1"})
    second = cache.build(workshop.spec(add_commit(workshop.repos / "o/r.git", {"a": "2"})))
    assert first != second


def test_of_two_builds_of_one_commit_one_builds_and_the_other_waits(workshop, small, said):
    commit = workshop.repo(
        {"requirements.txt": "six\n", "postBuild": "#!/bin/sh\ncat ~/../gate >/dev/null\necho built\n"}
    )
    spec = workshop.spec(commit)
    place = cache.place_of(spec)
    places: list[Path] = []
    builds = [threading.Thread(target=lambda: places.append(cache.build(workshop.spec(commit)))) for _ in range(2)]
    builds[0].start()
    until(place.exists)
    os.mkfifo(place / "gate")  # postBuild waits for somebody to open its other end
    builds[1].start()
    until(lambda: any("Waiting for the same build" in line for line in said()))
    (place / "gate").write_text("")
    for one in builds:
        one.join()
    assert places == [place, place]
    assert said().count("built") == 1


def test_a_half_built_environment_is_built_anew(workshop, small):
    commit = workshop.repo({"a": "1"})
    place = cache.place_of(workshop.spec(commit))
    write(place, {"venv/bin/python": "", "tree/rubbish": ""})
    (place / "tree").chmod(0o500)
    assert cache.build(workshop.spec(commit)) == place
    assert not (place / "tree/rubbish").exists()


def test_a_killed_builder_takes_what_it_runs_with_it_and_leaves_no_lock(workshop):
    spec = workshop.spec(workshop.repo({"a": "1"}))
    workshop.server.gate.clear()
    process = start_builder(spec, stdout=subprocess.DEVNULL)
    git = until(lambda: psutil.Process(process.pid).children())[0]
    process.kill()
    process.wait()
    until(lambda: not git.is_running() or git.status() == psutil.STATUS_ZOMBIE, what="git has ended")
    with cache.place_of(spec).with_suffix(".lock").open() as file:
        assert unlocked(file)
    workshop.server.gate.set()


def unlocked(file: Any) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


# A session's own environment


def wheel(folder: Path, name: str, version: str) -> Path:
    """A wheel of one module and one command."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    files = {
        f"{name}.py": f"version = {version!r}\ndef main(): print('{name} ' + version)\n",
        f"{name}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{name}-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}-{version}.dist-info/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
        f"{name}-{version}.data/data/share/jupyter/{name}.txt": "hello",
    }
    record = "".join(
        f"{file},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}\n"
        for file, text in files.items()
    )
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{name}-{version}.dist-info/RECORD": record}.items():
            archive.writestr(file, text)
    return path


def in_session(server: dict[str, Any], *argv: str) -> str:
    env = {**server["env"], "HOME": server["env"]["IPYTHONDIR"], "PIP_NO_INDEX": "1"}
    command = subprocess.run(argv, env=env, cwd=server["cwd"], capture_output=True, text=True, check=False)
    assert command.returncode == 0, command.stdout + command.stderr
    return command.stdout.strip()


def test_what_is_installed_in_a_session_stays_in_it(workshop, small, tmp_path):
    old, new = wheel(tmp_path, "greeting", "1.0"), wheel(tmp_path, "greeting", "2.0")
    place, spec = workshop.build({"requirements.txt": f"greeting @ file://{old}\n"})
    server = session.prepare(spec, place)
    before = snapshot(place / "venv")
    assert in_session(server, "greeting") == "greeting 1.0"
    assert in_session(server, "pip", "--version").startswith("pip ")
    in_session(server, "pip", "install", "--quiet", str(new))
    assert in_session(server, "greeting") == "greeting 2.0"
    assert in_session(server, "python", "-c", "import greeting; print(greeting.version)") == "2.0"
    assert snapshot(place / "venv") == before
    other = session.prepare(workshop.spec(spec["commit"]), place)
    assert in_session(other, "greeting") == "greeting 1.0"


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file but compiled ones."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_an_editable_install_means_the_sessions_own_copy(workshop, small):
    files = {"pyproject.toml": PACKAGE, "src/mine/__init__.py": "", "binder/requirements.txt": "-e .\n"}
    place, spec = workshop.build(files)
    server = session.prepare(spec, place)
    where = in_session(server, "python", "-c", "import mine; print(mine.__file__)")
    assert where == f"{spec['home']}/repo/src/mine/__init__.py"


def test_a_fork_of_the_same_commit_has_its_own_origin(workshop, small):
    place, spec = workshop.build({"a": "1"})
    other = workshop.spec(spec["commit"], repo_url="https://u:p@example.org/fork/r.git")
    server = session.prepare(other, place)
    assert "url = https://example.org/fork/r.git\n" in (Path(server["cwd"]) / ".git/config").read_text()


# The whole way


def start_builder(spec: dict[str, Any], **more: Any) -> subprocess.Popen[str]:
    file = Path(spec["home"]) / "spec.json"
    file.write_text(json.dumps(spec))
    return subprocess.Popen([sys.executable, "-I", str(FOLDER), str(file)], text=True, **more)


def test_as_a_process_its_last_line_says_what_became_of_it(workshop):
    spec = workshop.spec(workshop.repo({"environment.yml": "x"}))
    process = start_builder(spec, stdout=subprocess.PIPE)
    lines = [json.loads(line) for line in process.communicate()[0].splitlines()]
    assert process.returncode == 1
    assert lines[0]["phase"] == "fetching"
    assert lines[-1]["phase"] == "failed"
    assert "environment.yml asks for conda" in lines[-1]["message"]
    assert not (Path(spec["home"]) / "spec.json").exists()


def test_a_cell_runs_in_a_jupyterlab_behind_the_tunnel_whose_kernels_open_no_port(workshop, tmp_path):
    commit = workshop.repo({"requirements.txt": "six\n", "hello.txt": "hello"})
    broker = BrokerDouble(workshop.spec(commit))
    home, runtime = tmp_path / "instance", Path(tempfile.mkdtemp(prefix="ab-"))
    home.mkdir()
    boot = {
        "broker": broker.url,
        "order": broker.order,
        "token": ENROLMENT_TOKEN,
        "silence_seconds": 60,
        "home": str(home),
        "runtime": str(runtime),
        "cache": str(workshop.folder / "cache"),
        "until": broker.deadline.isoformat(),
        "builder": [sys.executable, "-I", str(FOLDER)],
    }
    (tmp_path / "BOOT.json").write_text(json.dumps(boot))
    process = subprocess.Popen([sys.executable, agent.__file__, str(tmp_path / "BOOT.json")])
    try:
        until(lambda: broker.status()["server"] == "up" or broker.messages("failed"), seconds=100)
        assert broker.messages("failed") == []
        assert broker.status()["kind"] == "jupyter"
        kernel = json.loads(http(broker.take(), "POST", "/api/kernels", broker)[1])["id"]
        code = "import os, six; print(open('hello.txt').read(), six.__name__, os.environ['ANYBINDER_INSTANCE'])"
        assert run_cell(broker, kernel, code) == f"hello six {broker.order}\n"
        assert list(runtime.glob(f"kernel-{kernel}-ipc-*"))
        assert listening("jupyterlab") == []
        # ipykernel's own door for output of forked processes: it only takes, and only with 16 random bytes.
        assert len(listening("ipykernel")) <= 1
        until(lambda: broker.status()["kernels"] == 1)
        assert http(broker.take(), "GET", "/api/status", None)[0] == 403
    finally:
        process.terminate()
        process.wait()
        broker.close()
        shutil.rmtree(runtime)


def http(leg: Leg, method: str, path: str, broker: BrokerDouble | None) -> tuple[int, bytes]:
    token = f"Authorization: token {SERVER_TOKEN}\r\n" if broker else ""
    leg.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{token}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
    head, _, body = leg.receive_all().partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def run_cell(broker: BrokerDouble, kernel: str, code: str) -> str:
    """What the code prints."""
    uri = f"ws://x/api/kernels/{kernel}/channels"
    headers = {"Authorization": f"token {SERVER_TOKEN}"}
    header = {
        "msg_id": uuid.uuid4().hex,
        "session": "s",
        "username": "u",
        "msg_type": "execute_request",
        "version": "5.3",
    }
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    leg = broker.take()
    with websocket(uri, sock=leg.connection, additional_headers=headers) as channel:
        channel.send(json.dumps(message))
        while True:
            answer = json.loads(channel.recv(timeout=60))
            if answer["msg_type"] in ("stream", "error"):
                return str(answer["content"].get("text") or answer["content"])


def listening(program: str) -> list[int]:
    """Every port on which processes with this word in their command listen."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(program in word for word in process.info["cmdline"] or []):
            with contextlib.suppress(psutil.Error):
                connections = process.net_connections("tcp")
                found += [one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN]
    return found
