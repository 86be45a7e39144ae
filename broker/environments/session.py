"""What each session has of its own: a working copy, a home, a thin environment over the kept one, and its server."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from broker.environments import programs
from broker.environments.programs import Failed


def prepare(spec: dict[str, Any], place: Path) -> dict[str, Any]:
    """Make the session's own working copy, home and environment; returns how to start its server. Starts one `cp`."""
    record = json.loads((place / "ok.json").read_text())
    home, runtime = Path(spec["home"]), Path(spec["runtime"])
    copy(place / "tree", home / "repo")
    copy(place / "home", home / "home")
    own_origin(home / "repo", record["repo"], spec["repo_url"])
    overlay(home / "env", place, home / "repo", record["editable"])
    announce_nothing(home / "home")
    root = home / "repo" / spec.get("subdir", "")
    argv = jupyter(home / "env", root, runtime)
    if record["start"]:
        argv = [*programs.script(home / "repo" / record["start"]), *argv]
    env = {
        **programs.repository_environment(home / "env", root),
        **jupyter_environment(place / "venv", home / "home", runtime),
    }
    return {"argv": argv, "env": env, "cwd": str(root)}


SERVE_LAB = """\
# JupyterLab, a second sooner: for one format of its schemas, which Jupyter does not use, jsonschema would compile a grammar
# at each start. It does without where the module is missing, and here, in the server alone, it is.
import sys

sys.modules["rfc3987_syntax"] = None
from jupyterlab.labapp import main

sys.exit(main())
"""


def jupyter(env: Path, root: Path, runtime: Path) -> list[str]:
    """JupyterLab on a socket that only its owner can open, with kernels that listen on no port either.

    Its token comes by $JUPYTER_TOKEN: the arguments of a process can be read by anybody.
    """
    return [
        *(str(env / "bin/python"), str(env / "bin/serve-lab"), "--no-browser", "--log-level=WARN"),
        *(["--allow-root"] if os.getuid() == 0 else []),
        f"--ServerApp.sock={runtime / 's.sock'}",
        "--ServerApp.sock_mode=0600",
        f"--ServerApp.root_dir={root}",
        "--ServerApp.base_url=/",
        "--ServerApp.allow_remote_access=True",
        "--KernelManager.transport=ipc",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]


def jupyter_environment(venv: Path, home: Path, runtime: Path) -> dict[str, str]:
    """Jupyter finds what the environment brings, and nothing of the person's own."""
    env = {
        "JUPYTER_PATH": str(venv / "share/jupyter"),
        "JUPYTER_CONFIG_PATH": str(venv / "etc/jupyter"),
        "JUPYTER_CONFIG_DIR": str(home / ".jupyter"),
        "JUPYTER_DATA_DIR": str(home / ".local/share/jupyter"),
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "IPYTHONDIR": str(home / ".ipython"),
        "SHELL": programs.variable("SHELL", "/bin/sh"),
    }
    if (venv / "share/jupyter/lab").is_dir():
        env["JUPYTERLAB_DIR"] = str(venv / "share/jupyter/lab")
    return env


def copy(source: Path, target: Path) -> None:
    """A copy of the folder: links stay links; blocks are shared where the file system can do that."""
    if not os.listdir(source):  # noqa: PTH208 -- a name is enough
        target.mkdir(mode=0o700)
        return
    import subprocess

    options = ["-a", "--reflink=auto"] if sys.platform.startswith("linux") else ["-a"]
    copied = subprocess.run(
        ["cp", *options, "--", str(source), str(target)], capture_output=True, text=True, check=False
    )
    if copied.returncode:
        raise Failed(f"The working copy cannot be made: {copied.stderr.strip()[-300:]}")


def own_origin(repo: Path, built_from: str, url: str) -> None:
    """A commit can be in several repositories; `git pull` shall ask the one that was launched."""
    url = re.sub(r"(\w+://)[^/@]+@", r"\1", url)
    config = repo / ".git/config"
    if url != built_from and config.is_file() and not config.is_symlink():
        config.write_text(re.sub(r"(?m)^\turl = .*$", lambda _: f"\turl = {url}", config.read_text(), count=1))


def announce_nothing(home: Path) -> None:
    """No pop-up that asks whether to fetch news, in a session that is gone tomorrow."""
    page = home / ".jupyter/labconfig/page_config.json"
    if not page.exists():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text('{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}')


def overlay(env: Path, place: Path, repo: Path, editable: list[str]) -> None:
    """A virtual environment over the kept one: sees all of it, and takes what is installed from now on.

    Scripts are copied to it, so that whatever they install lands here. Made by hand: `venv` would take longer than all
    else together.
    """
    venv = place / "venv"
    kept = site_packages(venv)
    own = env / kept.relative_to(venv)
    own.mkdir(parents=True)
    (env / "bin").mkdir()
    (env / "bin/serve-lab").write_text(SERVE_LAB)
    (env / "pyvenv.cfg").write_text((venv / "pyvenv.cfg").read_text())
    (own / "_anybinder.pth").write_text(f"import site; site.addsitedir({str(kept)!r})\n")
    for name in editable:  # an editable install shall mean the session's copy; sorts before ours where it matters
        (own / name).write_text((kept / name).read_text().replace(str(place / "tree"), str(repo)))
    with os.scandir(venv / "bin") as scripts:
        for script in scripts:
            place_script(script, venv, env)


def place_script(script: os.DirEntry[str], venv: Path, env: Path) -> None:
    """The same script, on the session's own Python."""
    target = env / "bin" / script.name
    if script.is_symlink():
        target.symlink_to(os.readlink(script.path))  # noqa: PTH115
        return
    if script.stat().st_size > 100_000:
        target.symlink_to(script.path)
        return
    with open(script.path, "rb") as file:  # noqa: PTH123 -- sixty of them, and Path is slow
        content = file.read()
    shebang = f"#!{venv}/bin/python".encode()
    if content.startswith(shebang) and len(str(env)) > 100:  # a kernel reads 127 bytes of that line
        rest = content.partition(b"\n")[2]
        content = f"#!/bin/sh\n'''exec' '{env}/bin/python' \"$0\" \"$@\"\n' '''\n".encode() + rest
    content = content.replace(f"{venv}/".encode(), f"{env}/".encode()).replace(str(venv).encode(), str(env).encode())
    target.write_bytes(content)
    target.chmod(script.stat().st_mode & 0o777)


def site_packages(venv: Path) -> Path:
    return next(venv.glob("lib/python3*/site-packages"))


def editable_files(place: Path) -> list[str]:
    """Files in site-packages by which an editable install points into the tree."""
    kept, tree = site_packages(place / "venv"), str(place / "tree").encode()
    candidates = [*kept.glob("*.pth"), *kept.glob("*_finder.py"), *kept.glob("_*.py")]
    return sorted(file.name for file in candidates if tree in file.read_bytes())
