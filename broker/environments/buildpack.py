"""Our build pack for repo2docker, and the program that builds with it: `python -I broker/environments --image ORDER.json`.

repo2docker runs in a process of its own. Its log handlers, its working folder and its exits are then its own business; it is
ended with all that it started by one signal; and importing it costs nothing where the image is found. Its order of packs is
kept, but where it would fill the environment from conda for files that ask for nothing of conda, ours fills it with `uv`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from repo2docker.app import Repo2Docker
from repo2docker.buildpacks import BaseImage, PipfileBuildPack, PythonBuildPack
from repo2docker.contentproviders import Local
from repo2docker.docker import DockerEngine
from repo2docker.engine import BuildError, ContainerEngineException
from repo2docker.utils import execute_cmd, is_local_pip_requirement

from broker.environments import installing, transcript, wishes
from broker.environments.programs import Failed

VENV = "/srv/venv"
PYTHONS = "/opt/python"
PROFILE = "/etc/profile.d/zz-anybinder.sh"
USER, UID = "jovyan", 1000  # repo2docker's own name, and the first person's number: neither may be root


class UvBuildPack(BaseImage):
    """requirements.txt, runtime.txt, apt.txt, postBuild, start, setup.py and pyproject.toml, without conda.

    The same Jupyter, the same Python rules and one resolution with the repository's own requirements as the process engine
    makes. There is no cache mount: what one repository's setup code writes to it, another's build would install.
    """

    downloads = False
    uv_version = ""

    def detect(self) -> bool:
        """Whatever the packs before it left, as long as it is about Python."""
        return self.runtime[0] in (None, "python")

    @property
    def wish(self) -> wishes.Wish:
        """What the repository asks for, read by the same code as for the process engine. Raises Failed."""
        if not hasattr(self, "_wish"):
            root = Path.cwd()
            self._wish = wishes.read_python(root, wishes.binder_folder(root))
            if Path(self.binder_path("install.R")).exists():
                note(
                    "install.R is left out: that this is about R has to be said in runtime.txt, like r-4.4-2025-06-01."
                )
        return self._wish

    @lru_cache  # noqa: B019 -- the base class caches all of these so: its lists are changed by whoever asks
    def get_base_packages(self) -> set[str]:
        return cast(set[str], super().get_base_packages()) | {"ca-certificates", "git", "python3", "python3-venv"}

    @lru_cache  # noqa: B019
    def get_build_env(self) -> list[tuple[str, str]]:
        """Scripts written for repo2docker find their way by these, conda's names apart."""
        return [
            *super().get_build_env(),
            ("NB_PYTHON_PREFIX", VENV),
            ("KERNEL_PYTHON_PREFIX", VENV),
            ("VIRTUAL_ENV", VENV),
            ("UV_PYTHON_INSTALL_DIR", PYTHONS),
        ]

    @lru_cache  # noqa: B019
    def get_path(self) -> list[str]:
        return [*super().get_path(), "${VIRTUAL_ENV}/bin"]

    @lru_cache  # noqa: B019
    def get_build_scripts(self) -> list[tuple[str, str]]:
        """What no file but the Python's version has a say in: these layers are shared by all repositories."""
        own_uv = "/opt/uv/bin/"
        return [
            *super().get_build_scripts(),
            (
                "root",
                "export HOME=/root PIP_DISABLE_PIP_VERSION_CHECK=1; python3 -m venv /opt/uv && "
                f"{own_uv}pip install --quiet --no-cache-dir uv=={self.uv_version} && ln -s {own_uv}uv /usr/local/bin/uv",
            ),
            # The entry point is a login shell, and Debian's /etc/profile resets PATH.
            ("root", f"echo 'export PATH=\"$HOME/.local/bin:$REPO_DIR/.local/bin:{VENV}/bin:$PATH\"' > {PROFILE}"),
            ("root", self._make_environment()),
            ("${NB_USER}", self._install(list(installing.BASE), "--quiet")),
        ]

    def _make_environment(self) -> str:
        """The base image's own Python unless the repository names one; else a sentence that says which there are."""
        request = self.wish.python or ">=3.8"
        uv = "UV_PYTHON_PREFERENCE=system uv python"
        find = f"P=$({uv} find --system --no-project --no-python-downloads {shlex.quote(request)} 2>/dev/null)"
        get = (
            f"{{ uv python install --no-cache --quiet {shlex.quote(request)} && {find}; }}"
            if self.downloads
            else "false"
        )
        have = f"{uv} list --only-installed | sed -n 's/^cpython-\\([0-9.]*\\)-.*/\\1/p' | sort -uV | paste -sd, | sed 's/,/, /g'"
        asks = f"{self.wish.python_from or 'Anybinder'} asks for Python {request}"
        sorry = f"echo {shlex.quote(transcript.OURS + asks)}', which the base image does not have. It has '$({have})."
        make = f'uv venv --quiet --no-project --no-cache --python "$P" {VENV} && chown -R ${{NB_USER}}: {VENV}'
        # Else root leaves its own folders in the person's home.
        return f"export HOME=/root; {find} || {get} || {{ {sorry}; exit 1; }}; {make}"

    def _install(self, wanted: list[str], *options: str) -> str:
        """One installation; requirements are resolved by pip's own rule for several indexes, as in the process engine."""
        shared = ("--no-cache", "--compile-bytecode", "--index-strategy", "unsafe-best-match", "--python", VENV)
        return " ".join(["uv pip install", *shared, *options, *map(shlex.quote, wanted)])

    def _installations(self) -> list[tuple[str, str]]:
        file = self.binder_path("requirements.txt") if self.wish.requirements else None
        wanted = installing.installations(self.wish, Path(), requirements=file)
        return [("${NB_USER}", self._install(each)) for each in wanted if each != list(installing.BASE)]

    @property
    def _stands_alone(self) -> bool:
        """Whether the requirements can be installed before the rest of the repository is there, so that the layer is kept."""
        if self.wish.project:
            return False
        lines = wishes.text_of(self.wish.requirements).splitlines() if self.wish.requirements else []
        return not any(is_local_pip_requirement(line) for line in lines)

    @lru_cache  # noqa: B019
    def get_preassemble_script_files(self) -> dict[str, str]:
        file = self.binder_path("requirements.txt")
        alone = self.wish.requirements and self._stands_alone
        return {**super().get_preassemble_script_files(), **({file: file} if alone else {})}

    @lru_cache  # noqa: B019
    def get_preassemble_scripts(self) -> list[tuple[str, str]]:
        return [*super().get_preassemble_scripts(), *(self._installations() if self._stands_alone else [])]

    @lru_cache  # noqa: B019
    def get_assemble_scripts(self) -> list[tuple[str, str]]:
        return [*super().get_assemble_scripts(), *([] if self._stands_alone else self._installations())]


class UvPipfileBuildPack(UvBuildPack):
    """The same for Pipfile and Pipfile.lock: pipenv says what is in them, and uv installs it."""

    def detect(self) -> bool:
        """As repo2docker's own."""
        return bool(PipfileBuildPack(self.base_image).detect())

    @property
    def wish(self) -> wishes.Wish:
        """What counts beside the Pipfile: its own Python, `postBuild` and `start`. Raises Failed."""
        if not hasattr(self, "_wish"):
            wish = super().wish
            wish.requirements, wish.project = None, False
            if version := self._required_python():
                wish.python, wish.python_from = version
        return self._wish

    def _required_python(self) -> tuple[str, str] | None:
        for path, told in self._files():
            requires = told.get("requires", {})
            if version := requires.get("python_full_version") or requires.get("python_version"):
                return str(version), path
        return None

    def _files(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What the lock says of itself, then the Pipfile."""
        for name, read in (
            ("Pipfile.lock", lambda text: json.loads(text).get("_meta", {})),
            ("Pipfile", tomllib.loads),
        ):
            path = Path(self.binder_path(name))
            if path.exists():
                yield str(path), read(wishes.text_of(path))

    def _has_own_indexes(self) -> bool:
        """Other than the one that is the default in any case; where a mirror takes its place, that shall be asked."""
        told = [told.get("sources") or told.get("source") or [] for _, told in self._files()]
        return any(source.get("name") != "pypi" for sources in told for source in sources)

    @property
    def _stands_alone(self) -> bool:
        return False  # paths in a Pipfile lead into the repository

    def _installations(self) -> list[tuple[str, str]]:
        file = "/tmp/requirements.txt"  # noqa: S108 -- in the image
        pipenv = "uv tool run --no-cache --quiet pipenv"
        say = f"{pipenv} requirements --dev {'' if self._has_own_indexes() else '--exclude-index'} > {file}"
        command = self._install(["-r", file, *installing.BASE])
        folder = shlex.quote(self.binder_dir or ".")
        return [
            (
                "${NB_USER}",
                f"cd {folder} && {{ [ -e Pipfile.lock ] || {pipenv} lock; }} && {say} && {command} && rm {file}",
            )
        ]


OURS = {PythonBuildPack: UvBuildPack, PipfileBuildPack: UvPipfileBuildPack}
"""What takes the place of which of repo2docker's."""


class Docker(DockerEngine):
    """repo2docker's own, whatever the address looks like. Labels are given to the engine, not written into the recipe: there
    they would be text between quotes, and every step after them would be done again."""

    container_cli = "docker"

    def __init__(self, parent: Builder) -> None:
        super().__init__(parent=parent)
        told = parent.order
        self.extra_buildx_build_args = [
            word for label in told["labels"].items() for word in ("--label", "=".join(label))
        ]
        # A Dockerfile may mount a cache by a name that another repository's uses too.
        self.extra_buildx_build_args += ["--build-arg", f"BUILDKIT_CACHE_MOUNT_NS={told['key']}"]

    def inspect_image(self, _image: str) -> None:
        """Whether there is such an image has been looked up before."""


class Podman(Docker):
    """Of Podman's many versions only the newer know the words by which repo2docker has Docker build; all know these."""

    container_cli = "podman"

    def build(
        self, *, tag: str, dockerfile: str = "", path: str = "", fileobj: Any = None, **more: Any
    ) -> Iterator[str]:
        """Yields what it says, line by line. Raises CalledProcessError."""
        labels = {**self.parent.order["labels"], **(more.get("labels") or {})}
        words = ["podman", "--remote", "build", "--format", "docker", "--tag", tag]
        words += [
            word for name, value in (more.get("buildargs") or {}).items() for word in ("--build-arg", f"{name}={value}")
        ]
        words += [word for name, value in labels.items() for word in ("--label", f"{name}={value}")]
        words += ["--file", dockerfile] if dockerfile else []
        with tempfile.TemporaryDirectory() as folder:
            if fileobj:
                with tarfile.open(fileobj=fileobj) as context:
                    context.extractall(folder)  # noqa: S202 -- we have just packed it
            yield from execute_cmd([*words, folder if fileobj else path], True)


class Builder(Repo2Docker):
    """repo2docker on a folder that we have fetched; all that it needs is in the order."""

    def __init__(self, order: dict[str, Any]) -> None:
        super().__init__()
        self.order = order
        self.repo, self.ref, self.subdir = order["tree"], order["commit"], order["subdir"]
        self.output_image_spec = order["name"]
        self.base_image = order["base_image"]
        self.user_id, self.user_name = UID, USER
        # Only the folder: the others ask the network what an address might be.
        self.content_providers = [Local]
        if order["builder"] == "uv":
            told = {name: order[name] for name in ("downloads", "uv_version")}
            ours = {stock: type(own.__name__, (own,), told) for stock, own in OURS.items()}
            self.buildpacks = [ours.get(pack, pack) for pack in self.buildpacks]
            self.default_buildpack = ours[PythonBuildPack]

    def get_engine(self) -> Docker:
        """The one that the backend names."""
        return {"docker": Docker, "podman": Podman}[self.order["kind"]](parent=self)


def main(path: Path) -> int:
    """Build. What is said on the way is for a Transcript to read; nothing is tagged unless all went well."""
    order = json.loads(path.read_text())
    end_all_with(order["parent"])
    app = Builder(order)
    app.initialize()
    try:
        app.build()
    except subprocess.CalledProcessError:
        return 1  # the engine has said why
    except (
        Failed,
        BuildError,
        ContainerEngineException,
        RuntimeError,
        ValueError,
        OSError,
        KeyError,
        TypeError,
    ) as fault:
        note(transcript.OURS + " ".join(str(fault).split()))
        return 1
    finally:
        with contextlib.suppress(AttributeError):
            app.close_handlers()
    return 0


def note(line: str) -> None:
    """Among what repo2docker says."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def end_all_with(parent: int) -> None:
    """End with the builder, however that ends, and take along what we started: the engine's command, and what that started.

    The engine gives a build up when the one who asked for it is gone.
    """
    import ctypes
    import signal

    def end(_number: int, _frame: object) -> None:
        os.killpg(os.getpgid(0), signal.SIGKILL)

    signal.signal(signal.SIGTERM, end)
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(1, int(signal.SIGTERM), 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            end(0, None)
