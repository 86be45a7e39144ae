"""Every setting, declared once, with a sentence. Nothing else reads the process environment.

Each is set by an environment variable of the same name with the prefix `ANYBINDER_`, or in `config.toml` in the state
folder; the environment wins.
"""

from __future__ import annotations

import functools
import hashlib
import os
import socket
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from broker.home import default_home


class BackendSetting(BaseModel):
    """One backend: a provider, configured and offered to people."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")
    provider: str
    """Name of the entry point in the group `anybinder.providers`."""
    title: str = ""
    configuration: Mapping[str, str] = {}
    idle_minutes: int | None = None
    max_hours: float | None = None


class Settings(BaseSettings):
    """How this broker runs. The defaults are the embedded size: one process, SQLite, one local person."""

    model_config = SettingsConfigDict(env_prefix="ANYBINDER_", env_nested_delimiter="__", extra="forbid", frozen=True)

    home: Path = Field(default_factory=default_home)
    """State folder: table, keys, environments, logs. Made with mode 0700."""
    host: str = "127.0.0.1"
    """Address the front listens on."""
    port: int = 8000
    """Port the front listens on; 0 picks a free one."""
    public_url: str = ""
    """The https address people and agents use. Empty: this computer only."""
    session_domain: str = "localhost"
    """Each session is `<id>.<session_domain>`; a registrable domain that serves nothing else."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses of the proxies in front of us; only what they say in `X-Forwarded-*` is believed."""
    identity: Literal["local"] = "local"
    """Who may use it: `local` is the one local person."""

    database_url: SecretStr = SecretStr("")
    """SQLAlchemy URL. Empty: SQLite in the state folder."""
    redis_url: SecretStr = SecretStr("")
    """Where Celery queues and events fan out. Empty: in this process."""
    workers: int = 8
    """Threads that advance launches in the embedded queue; Celery has its own count."""

    backends: tuple[BackendSetting, ...] = (BackendSetting(name="local", provider="local", title="This computer"),)
    """What launches can run on, best first."""

    idle_minutes: int = 30
    """Stop a session after this long without a keystroke or a running cell."""
    busy_hours: float = 24
    """A kernel busy for longer than this no longer counts as activity."""
    max_hours: float = 12
    """Longest life of a session."""
    boot_minutes: float = 10
    """An instance whose agent has not enrolled by then is ended and another offer tried."""
    build_minutes: float = 60
    """A build that takes longer has failed."""
    heartbeat_seconds: float = 10
    """How often an agent reports when nothing else is to be said."""
    silence_minutes: float = 15
    """An agent that has not heard from the broker for this long ends everything; the broker, hearing nothing, does the same."""
    lease_seconds: float = 120
    """How long one worker holds one launch: longer than any step (two provider calls of 45 s)."""
    tick_seconds: float = 1
    """How often the table is searched for launches that are due; a lost message costs this much."""
    sweep_seconds: float = 60
    """How often the reaper compares what the clouds list with what the table wants."""
    attempts: int = 3
    """How many offers one launch may try."""

    git_seconds: float = 60
    """Limit for one look-up of a reference."""
    clone_megabytes: int = 4096
    """A repository that brings more than this is refused."""
    resolve_cache_seconds: float = 20
    """A reference looked up less than this ago is not asked for again."""
    github_api: str = "https://api.github.com"
    """Where GitHub's interface answers; another address for GitHub Enterprise."""
    github_url: str = "https://github.com"
    """Where GitHub's repositories are cloned from."""
    github_token: SecretStr = SecretStr("")
    """Raises GitHub's limit of 60 look-ups an hour to 5,000; it is sent to `github_api` and nowhere else."""
    local_tcp_servers: bool = False
    """On this computer, let a repository's `start` serve on a TCP port, which every user of this computer can open."""
    python_downloads: bool = False
    """Let `uv` download a Python that this computer lacks."""

    log_format: Literal["console", "json"] = "console"
    """Logs for people, or one JSON object a line."""
    log_level: str = "INFO"
    """The least that is logged: DEBUG, INFO, WARNING or ERROR."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls, default_home() / "config.toml")
        return init_settings, env_settings, toml

    @model_validator(mode="after")
    def _served_brokers_need_a_domain(self) -> Self:
        if self.public_url and not self.public_url.startswith("https://"):
            raise ValueError("public_url must begin with https://: agents and browsers send secrets to it.")
        return self

    @property
    def served(self) -> bool:
        """True where others than the one local person can reach this broker."""
        return bool(self.public_url) or self.host not in ("127.0.0.1", "::1", "localhost")

    def table_url(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url.get_secret_value() or f"sqlite:///{self.home / 'anybinder.sqlite'}"

    @functools.cached_property
    def runtime(self) -> Path:
        """A short, private folder for unix sockets, whose paths may have at most 107 bytes."""
        name = hashlib.sha256(str(self.home).encode()).hexdigest()[:8]
        base = os.environ.get("XDG_RUNTIME_DIR")
        if not base or not Path(base).is_dir() or len(base) > 40:
            base = str(Path(tempfile.gettempdir()) / f"anybinder-{os.getuid()}")
            private_folder(Path(base))
        return private_folder(Path(base) / f"ab-{name}")


def private_folder(path: Path) -> Path:
    """This folder, made with mode 0700 where missing. Raises PermissionError where somebody else owns it or can enter it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to somebody else. Choose another state folder with ANYBINDER_HOME.")
    if stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o700)
    return path


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@functools.cache
def current() -> Settings:
    """The settings of this process, read once."""
    return Settings()
