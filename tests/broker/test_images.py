"""Images without an engine: their names, their recipes, what is said of a build, and what is kept on this computer.

What takes an engine is in tests/docker.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from broker.environments import building, images, keeping, programs, registry, transcript
from tests import commands
from tests.waiting import until

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # repo2docker's own, at its import
    from broker.environments import buildpack

REFERENCE = re.compile(
    r"[a-z0-9]+(?:[._-][a-z0-9]+)*(?::\d+)?(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*:[\w.-]{1,128}"
)
SPEC: dict[str, Any] = {
    "repo_url": "https://example.org/O/R.git",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "title": "O/R",
    "subdir": "",
    "cache": "/nowhere",
    "engine": {"kind": "docker", "url": "unix:///nowhere", "builder": "uv", "registry": "", "base_image": "base:1"},
}


def wanted(base: str = "sha256:1", **changes: Any) -> images.Wanted:
    return images.wanted_by({**SPEC, **changes}, base)


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        wanted(base="sha256:2"),
        wanted(repo_url="https://example.org/O/S.git"),
        wanted(commit="f" * 40),
        wanted(subdir="deep"),
        wanted(engine={**SPEC["engine"], "builder": "stock"}),
        wanted(content={"kind": "files", "key": "abc"}),
    ],
)
def test_whatever_decides_a_build_is_in_its_name_and_key(other):
    assert (other.name, other.key) != (wanted().name, wanted().key)
    assert other.name != wanted().name
    assert other.key != wanted().key


def test_whatever_does_not_decide_it_is_not():
    same = wanted(
        repo_url="https://ada:secret@example.org/O/R.git".replace("ada:secret@", ""), home="/else", env={"A": "1"}
    )
    assert (same.name, same.key) == (wanted().name, wanted().key)


def test_a_commit_changes_what_is_behind_the_colon_only():
    before, after = wanted().name.split(":"), wanted(commit="f" * 40).name.split(":")
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_credentials_in_an_address_are_neither_in_labels_nor_in_what_decides():
    one, two = (wanted(repo_url=f"https://{who}@example.org/O/R.git") for who in ("ada:one", "eve:two"))
    assert one.key == two.key
    assert "one" not in json.dumps(one.labels)


@given(some.text(max_size=80), some.sampled_from(["", "127.0.0.1:5000", "registry.example/some/place/"]))
def test_every_title_gives_a_name_that_engines_take(title, place):
    name = wanted(title=title, engine={**SPEC["engine"], "registry": place}).name
    assert REFERENCE.fullmatch(name), name


def test_images_lie_below_the_registry_the_backend_names():
    names = [
        wanted(engine={**SPEC["engine"], "registry": place}).name.rpartition("/")[0]
        for place in ("", "h:5000", "h/team/")
    ]
    assert names == ["anybinder", "h:5000/anybinder", "h/team"]


class Engine:
    """One that has one image."""

    def __init__(self, **told: Any) -> None:
        self.told = told

    def inspect_image(self, _name: str) -> dict[str, Any]:
        return self.told


@pytest.mark.parametrize(
    ("digests", "found"),
    [
        ([], "sha256:id"),
        (["elsewhere/base@sha256:a"], "sha256:id"),
        (["elsewhere/base@sha256:a", "base@sha256:b"], "sha256:b"),
    ],
)
def test_a_base_image_is_known_by_its_own_registrys_digest_or_else_by_the_engines(digests, found):
    client = Engine(Id="sha256:id", RepoDigests=digests)
    for name in ("base:1", "docker.io/library/base:1"):
        assert images.base_digest(client, {**SPEC["engine"], "base_image": name}) == found


# --- registries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a/b:1", ("a/b", "1")),
        ("a/b", ("a/b", "latest")),
        ("h:5000/a", ("h:5000/a", "latest")),
        ("h:5000/a@sha256:1", ("h:5000/a", "sha256:1")),
    ],
)
def test_names_of_images_are_taken_apart(name, parts):
    assert registry.parts(name) == parts


def test_logins_are_used_for_the_backends_own_registry_only_and_no_build_sees_them(tmp_path):
    logins = {host: {"auth": base64.b64encode(b"ada:secret").decode()} for host in ("ours:5000", "other.example")}
    told = {"auths": logins, "proxies": {"default": {"httpProxy": "http://proxy"}}, "cliPluginsExtraDirs": ["/plugins"]}
    (tmp_path / "config.json").write_text(json.dumps(told))
    engine = {"registry": "ours:5000/team", "config": str(tmp_path)}
    assert registry.login(engine, "ours:5000/team/x:1")["password"] == "secret"
    for name in ("other.example/x:1", "x:1", "ours:5000.evil.example/x"):
        assert registry.login(engine, name) == {}
    assert building.configuration(engine) == {
        "cliPluginsExtraDirs": [str(tmp_path / "cli-plugins"), "/plugins"],
        "proxies": told["proxies"],
    }


def test_the_engines_command_sees_no_variable_of_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYBINDER_SECRET", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    (tmp_path / "docker").mkdir()
    told = building.environment(tmp_path, SPEC["engine"])
    assert not {"ANYBINDER_SECRET", "AWS_SECRET_ACCESS_KEY"} & set(told)
    assert told["HOME"].startswith(str(tmp_path))


# --- recipes --------------------------------------------------------------------------------------------------------


def order(**changes: Any) -> dict[str, Any]:
    return {
        "tree": ".",
        "commit": "c",
        "subdir": "",
        "name": "n",
        "base_image": "base",
        "builder": "uv",
        "downloads": False,
        "uv_version": "1",
        "kind": "docker",
        "labels": {},
        "key": "k",
        **changes,
    }


def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], builder: str = "uv") -> Any:
    """The build pack that is chosen for these files."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    app = buildpack.Builder(order(tree=str(tmp_path), builder=builder))
    packs = (each("base") for each in app.buildpacks)
    return next((one for one in packs if one.detect()), None) or app.default_buildpack("base")


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        ({}, "UvBuildPack"),
        ({"requirements.txt": ""}, "UvBuildPack"),
        ({"setup.py": ""}, "UvBuildPack"),
        ({"runtime.txt": "python-3.11", "apt.txt": "vim"}, "UvBuildPack"),
        ({"Pipfile": "", "requirements.txt": ""}, "UvPipfileBuildPack"),
        ({"environment.yml": "", "requirements.txt": ""}, "CondaBuildPack"),
        ({"environment.yaml": ""}, "CondaBuildPack"),
        ({"DESCRIPTION": "", "requirements.txt": ""}, "RBuildPack"),
        ({"runtime.txt": "r-4.4-2025-06-01", "install.R": ""}, "RBuildPack"),
        ({"runtime.txt": "r-4.4"}, "UvBuildPack"),
        ({"default.nix": "", "environment.yml": ""}, "NixBuildPack"),
        ({"Project.toml": "", "environment.yml": ""}, "JuliaProjectTomlBuildPack"),
        ({"REQUIRE": ""}, "JuliaRequireBuildPack"),
        ({"Dockerfile": "FROM x", "Project.toml": "", "environment.yml": ""}, "DockerBuildPack"),
        ({"binder/requirements.txt": "", "Dockerfile": "FROM x"}, "UvBuildPack"),
        ({".binder/Dockerfile": "FROM x", "requirements.txt": ""}, "DockerBuildPack"),
    ],
    ids=lambda value: "+".join(value) or "nothing" if isinstance(value, dict) else "",
)
def test_packs_are_chosen_in_repo2dockers_order(tmp_path, monkeypatch, files, chosen):
    assert type(pack(tmp_path, monkeypatch, files)).__name__ == chosen


def test_where_the_backend_wants_the_stock_packs_it_gets_no_other(tmp_path, monkeypatch):
    assert type(pack(tmp_path, monkeypatch, {"requirements.txt": ""}, "stock")).__name__ == "PythonBuildPack"


def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> str:
    return str(pack(tmp_path, monkeypatch, files).render({"NB_UID": "1000"}))


def test_requirements_that_stand_alone_are_installed_before_the_repository_is_copied(tmp_path, monkeypatch):
    text = recipe(tmp_path, monkeypatch, {"binder/requirements.txt": "six\n# -e .\n"})
    assert text.index("-r binder/requirements.txt") < text.index("src/ ${REPO_DIR}/")


@pytest.mark.parametrize("line", ["-e .", "-r more.txt", "-c pins.txt", "./wheels/x.whl"])
def test_requirements_that_name_files_wait_for_them(tmp_path, monkeypatch, line):
    text = recipe(tmp_path, monkeypatch, {"requirements.txt": f"{line}\n"})
    assert text.index("-r requirements.txt") > text.index("src/ ${REPO_DIR}/")


def test_hashes_are_demanded_of_the_repositorys_own_requirements_only(tmp_path, monkeypatch):
    text = recipe(tmp_path, monkeypatch, {"requirements.txt": "--require-hashes\nsix==1 --hash=sha256:0\n"})
    [own] = [line for line in text.splitlines() if "-r requirements.txt" in line]
    assert "jupyterlab" not in own


def test_a_pipfiles_own_index_is_asked_and_the_default_one_left_to_this_computers_mirror(tmp_path, monkeypatch):
    source = "[[source]]\nname = '{}'\nurl = 'https://index.example/simple'\n"
    assert "--exclude-index" in recipe(tmp_path, monkeypatch, {"Pipfile": source.format("pypi")})
    own = recipe(tmp_path, monkeypatch, {"Pipfile": source.format("ours") + "[requires]\npython_version = '3.9'\n"})
    assert "--exclude-index" not in own
    assert "Pipfile asks for Python 3.9" in own


def test_no_package_cache_is_shared_between_repositories(tmp_path, monkeypatch):
    text = recipe(tmp_path, monkeypatch, {"requirements.txt": "six"})
    assert "--mount" not in text
    assert all("--no-cache" in line for line in text.splitlines() if "uv pip install" in line)
    engine = buildpack.Builder(order(labels={"a": 'b"c'})).get_engine()
    assert engine.extra_buildx_build_args == ["--label", 'a=b"c', "--build-arg", "BUILDKIT_CACHE_MOUNT_NS=k"]
    assert buildpack.Builder(order(kind="podman")).get_engine().container_cli == "podman"


def test_what_a_repository_says_of_its_python_is_no_shell(tmp_path, monkeypatch):
    project = '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.9; $(touch /tmp/x)"\n'
    text = recipe(tmp_path, monkeypatch, {"pyproject.toml": project})
    assert "find --system --no-project --no-python-downloads '>=3.9; $(touch /tmp/x)'" in text


@pytest.mark.parametrize(
    "file", ["Dockerfile", "binder/requirements.txt", "binder/.dockerignore", "default.nix", "binder"]
)
def test_links_that_lead_out_of_the_repository_are_refused_before_anything_is_read(tmp_path, file):
    tree = tmp_path / "tree"
    (tree / file).parent.mkdir(parents=True)
    (tree / file).symlink_to("/etc" if file == "binder" else "/etc/passwd")
    with pytest.raises(programs.Failed, match="is a link that leads out of the repository"):
        building.check_links(tree, "")


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(programs.Failed, match="There is no folder deep in the repository"):
        building.check_links(tmp_path, "deep")
    with pytest.raises(programs.Failed, match="leads out of the repository"):
        building.check_links(tmp_path, "..")


# --- what a build says ----------------------------------------------------------------------------------------------


def read(text: str) -> tuple[list[str], str]:
    """(what a person sees, the sentence at the end) of what the engine said."""
    shown: list[str] = []
    told = transcript.Transcript(shown.append)
    for line in text.splitlines():
        told(line)
    return shown, told.sentence()


# Recorded from docker buildx 0.29.1 on Docker 20.10.24, shortened.
POST_BUILD = """\
Picked Local content provider.
Using UvBuildPack builder
#0 building with "default" instance using docker driver
#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 4.32kB done
#1 DONE 0.1s
#5 [ 4/22] RUN echo "en_US.UTF-8 UTF-8" > /etc/locale.gen &&     locale-gen
#5 CACHED
#26 [19/22] RUN ./postBuild
#26 0.482 about to
#26 0.501 (Reading database ... 5%
#26 ERROR: executor failed running [/bin/sh -c ./postBuild]: exit code: 3
------
 > [19/22] RUN ./postBuild:
0.482 about to
------
ERROR: failed to build: failed to solve: executor failed running [/bin/sh -c ./postBuild]: exit code: 3
"""


def test_the_person_sees_steps_and_their_output_and_no_machinery():
    shown, sentence = read(POST_BUILD)
    assert shown == [
        '[4/22] RUN echo "en_US.UTF-8 UTF-8" > /etc/locale.gen && locale-gen',
        "[19/22] RUN ./postBuild",
        "about to",
    ]
    assert sentence == "postBuild failed (exit status 3). Its last lines: about to"


def step(command: str, output: list[str], status: int = 1) -> str:
    lines = [f"#9 [1/1] {command}", *(f"#9 0.1 {line}" for line in output)]
    return "\n".join([*lines, f'#9 ERROR: process "/bin/sh -c …" did not complete successfully: exit code: {status}'])


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            step("RUN uv pip install -r requirements.txt", ["  × No solution found when resolving dependencies:",
                 "  ╰─▶ Because there is no version of numpy==99 …"]),
            "The packages cannot be installed: No solution found when resolving dependencies: "
            "Because there is no version of numpy==99 …",
        ),
        (
            step("RUN ${KERNEL_PYTHON_PREFIX}/bin/pip install -r requirements.txt",
                 ["Collecting numpy==99", "ERROR: No matching distribution found for numpy==99"]),
            "The packages cannot be installed: No matching distribution found for numpy==99",
        ),
        (
            step("RUN apt-get -qq update && apt-get install --yes x", ["Reading package lists...",
                 "E: Unable to locate package x"], 100),
            "The system packages cannot be installed: Unable to locate package x",
        ),
        (step("RUN make", ["one", "two"], 2), "RUN make failed (exit status 2). Its last lines: one / two"),
        (step("RUN make", [], 137), "RUN make was killed, perhaps for want of memory. It said nothing."),
        (
            "ERROR: failed to build: failed to solve: dockerfile parse error on line 1: FROM requires either one argument",
            "The image could not be built: dockerfile parse error on line 1: FROM requires either one argument",
        ),
        ("", "The image could not be built: the engine did not say why."),
        (f"#4 [1/2] RUN x\n#4 0.2 {transcript.OURS}There is no such Python.", "There is no such Python."),
        (
            "STEP 3/4: RUN make\nno rule\nError: building at STEP \"RUN make\": while running runtime: exit status 2",
            "RUN make failed (exit status 2). Its last lines: no rule",
        ),
    ],
)  # fmt: skip
def test_a_failure_is_one_sentence(said, sentence):
    assert read(said)[1] == sentence


@given(some.lists(some.text(alphabet="#0123456789 .[]/:ERORCAHD x", max_size=40)))
def test_whatever_a_build_says_can_be_read(lines):
    assert read("\n".join(lines))[1]


# --- reading along --------------------------------------------------------------------------------------------------


@pytest.fixture
def said(capsys):
    return lambda: [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()]


def line(message: str) -> str:
    return json.dumps({"phase": "building", "message": message}) + "\n"


def test_who_waits_is_told_every_line_once_whole_ones_only_and_the_next_builds_too(tmp_path, said):
    path = tmp_path / "x.log"
    reader = images.Reader(path)
    reader.read_on()
    with images.fresh(path) as first:
        first.write(line("one") + line("two")[:10])
        first.flush()
        reader.read_on()
        assert said()[1:] == ["one"]
        first.write(line("two")[10:])
    with images.fresh(path) as second:
        second.write(line("three"))
        second.flush()
        reader.read_on()
        reader.read_on()
    reader.close()
    assert said() == ["two", "three"]


def test_who_waits_fails_as_the_other_failed_but_not_as_somebody_did_long_ago(tmp_path, said):
    path = tmp_path / "x.log"
    path.write_text(json.dumps({"ended": time.time() - 60, "failure": "long ago"}) + "\n")
    reader = images.Reader(path)
    reader.read_on()
    assert reader.failure == ""
    with images.fresh(path) as log:
        log.write(json.dumps({"ended": time.time() + 1, "failure": "just now"}) + "\n")
    reader.read_on()
    reader.close()
    assert reader.failure == "just now"


# --- what is kept ---------------------------------------------------------------------------------------------------


def kept(folder: Path, name: str, *, days: float = 1) -> Path:
    """An environment that was last used so long ago."""
    place = folder / (name * 24)
    (place / "tree/.git").mkdir(parents=True)
    (place / "tree/.git/HEAD").write_text("f" * 40 + "\n")
    (place / "file").write_bytes(b"x" * 5000)
    (place / "ok.json").write_text(json.dumps({"repo": "https://example.org/r", "seconds": 1}))
    then = time.time() - days * 86400
    os.utime(place / "ok.json", (then, then))
    place.with_suffix(".lock").touch()
    return place


@pytest.fixture
def anybinder(tmp_path, monkeypatch):
    backend = {"name": "here", "provider": "local", "configuration": {"cache": str(tmp_path / "cache")}}
    with commands.images(monkeypatch, tmp_path / "home", backend) as run:
        yield run


def test_environments_are_listed_longest_unused_first_and_removed_by_age_name_or_all(tmp_path, anybinder):
    cache = tmp_path / "cache"
    old, new = kept(cache, "a", days=30), kept(cache, "b", days=2)
    rows = [json.loads(row) for row in anybinder("--json").splitlines()]
    assert [row["name"] for row in rows] == [old.name, new.name]
    assert rows[0]["size"] > 5000
    assert (rows[0]["repo"], rows[0]["commit"], rows[0]["kind"]) == ("https://example.org/r", "f" * 40, "environment")
    assert "30 d ago" in anybinder()
    assert anybinder("remove", "--unused-for", "7d", "--dry-run") == f"{old.name}\n"
    assert anybinder("remove", "--unused-for", "7d") == f"{old.name}\n"
    assert not old.exists()
    assert new.exists()
    assert "no such image" in anybinder("remove", "cccccccc", code=1)
    assert "Say which" in anybinder("remove", code=2)
    assert "is no time" in anybinder("remove", "--unused-for", "soon", code=2)
    assert anybinder("remove", "bbbbbb") == f"{new.name}\n"
    assert anybinder() == "Nothing is kept here.\n"


def test_an_environment_that_a_session_runs_from_is_not_removed(tmp_path):
    place = kept(tmp_path, "a")
    env = {"JUPYTER_PATH": str(place / "venv/share/jupyter"), "ANYBINDER_SOCKET": "x", "PATH": os.defpath}
    server = subprocess.Popen(["sleep", "60"], env=env, start_new_session=True)
    try:
        until(lambda: keeping.places_in_use(tmp_path), seconds=10, what="the session is seen")
        [one] = keeping.everything(tmp_path, None)
        with pytest.raises(programs.Failed, match="is in use by a session"):
            keeping.remove(one, tmp_path, None)
    finally:
        server.kill()
        server.wait()
    [one] = keeping.everything(tmp_path, None)
    keeping.remove(one, tmp_path, None)
    keeping.remove(one, tmp_path, None)  # what is gone already
    assert not place.exists()


def test_an_environment_that_is_being_built_or_was_just_found_is_not_removed(tmp_path):
    place = kept(tmp_path, "a")
    with place.with_suffix(".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        [one] = keeping.everything(tmp_path, None)
        assert one.in_use == "is being built."
    os.utime(place / "ok.json")
    [one] = keeping.everything(tmp_path, None)
    assert "was just given to a session" in one.in_use


def test_one_that_was_never_finished_can_be_removed(tmp_path):
    (tmp_path / ("c" * 24)).mkdir()
    [one] = keeping.everything(tmp_path, None)
    assert (one.repo, one.in_use) == ("(not finished)", "")
