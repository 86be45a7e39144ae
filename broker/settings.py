"""Every setting, declared once, with a sentence. Nothing else reads the process environment.

Each is set by an environment variable of the same name with the prefix `ANYBINDER_`, or in `config.toml` in the state
folder; the environment wins.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import ipaddress
import os
import re
import socket
import stat
import tempfile
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from broker import addresses, admission
from broker.home import default_home
from broker.sizes import ResourceSetting, SizeSetting
from federation import peers


class RepoConfig(BaseModel):
    """What can be set for repositories of a kind."""

    quota: int | None = None
    """How many sessions of one such repository may run at once; 0 for any number."""


class SpecConfig(BaseModel):
    """What holds for repositories of a kind; an item of BinderHub's `spec_config`."""

    pattern: str
    """Regular expression that the spec must match from its beginning; case does not count."""
    config: RepoConfig = RepoConfig()

    @field_validator("pattern")
    @classmethod
    def _pattern_can_be_read(cls, pattern: str) -> str:
        return compiled(pattern).pattern


class Policy(BaseModel):
    """Which repositories may run, and how many sessions of one; BinderHub's words and meaning.

    A host's patterns see BinderHub's string without its prefix (`owner/name/ref`), a backend's see it with (`gh/owner/…`);
    what was asked for is looked at, and what it resolved to.
    """

    model_config = ConfigDict(extra="forbid")  # a misspelt banned_specs would ban nothing

    allowed_specs: tuple[str, ...] = ()
    """Regular expressions: only what matches one of them may run. Empty: everything may."""
    banned_specs: tuple[str, ...] = ()
    """Regular expressions: what matches one of them may not run, allowed or not."""
    spec_config: tuple[SpecConfig, ...] = ()
    """Quotas by pattern; the last that matches counts."""
    high_quota_specs: tuple[str, ...] = ()
    """Regular expressions: what matches one of them has `per_repo_quota_higher`."""
    per_repo_quota: int | None = None
    """How many sessions of one repository may run at once. Empty: any number."""
    per_repo_quota_higher: int | None = None
    """The same for `high_quota_specs`."""

    @field_validator("allowed_specs", "banned_specs", "high_quota_specs")
    @classmethod
    def _patterns_can_be_read(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            compiled(pattern)
        return patterns


class HostSetting(Policy):
    """How one kind of repository host is asked, and what of it may run. Empty: as the host's own public site."""

    api: str = ""
    """Where its interface answers, for a host of one's own: GitHub Enterprise, GitLab, Bitbucket, Dataverse …"""
    url: str = ""
    """Where its pages are, and its repositories are cloned from."""
    token: SecretStr = SecretStr("")
    """Sent to `api` and nowhere else: it raises limits, and shows private repositories to everybody who may launch here."""


class IdentitySetting(BaseModel):
    """One OpenID Connect provider that people may sign in with. Its addresses are found by discovery."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")
    """What it is called in addresses (`/login/NAME/callback`) and in `open_to`: lower-case letters, digits and hyphens."""
    title: str = ""
    """What the page of signing in calls it. Empty: its name."""
    issuer: str
    """Its address, exactly as its tokens say it: https, or http on this computer."""
    client_id: str
    """What we are called there."""
    client_secret: SecretStr = SecretStr("")
    """What we prove that with. Empty: a public client, with PKCE alone."""
    scopes: str = "openid profile email"
    """What is asked for; `openid` is always."""
    groups: tuple[str, ...] = ("groups", "roles")
    """Claims that name the groups a person is in; a dot leads inward, as in `realm_access.roles`."""
    entitlements: tuple[str, ...] = ("entitlements", "eduperson_entitlement")
    """Claims that name entitlements."""
    affiliations: tuple[str, ...] = ("eduperson_scoped_affiliation", "voperson_external_affiliation")
    """Claims that name scoped affiliations, like `member@uni.example`."""
    linked: Mapping[str, str] = {}
    """By prefix of a repository host (`gh`, `gl`): the alias under which this Keycloak keeps people's own tokens for it."""

    @property
    def called(self) -> str:
        """What pages call it."""
        return self.title or self.name

    @field_validator("issuer")
    @classmethod
    def _issuer_is_safe(cls, issuer: str) -> str:
        address = urlsplit(issuer)
        if not address.netloc or not addresses.takes_secrets(address):
            raise ValueError("an issuer's address begins with https://, as its tokens name it.")
        return issuer  # with its last slash, if it has one: some have


class PeerSetting(BaseModel):
    """Another hub that launches can be forwarded to, and where people may have an account."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")
    """What it is called in addresses and by `--on`: lower-case letters, digits and hyphens. No backend is called so."""
    title: str = ""
    """What pages call it. Empty: its host."""
    url: str
    """Its address, up to what stands before `/hub`: https, or http on this computer."""
    binder_url: str = ""
    """Where its BinderHub answers, where that is another address, like `https://hub.example.org/services/binder`."""
    origins: tuple[str, ...] = ()
    """Further origins that its sessions or members live on: `https://hub.example.org`, or `https://*.example.org`. It may
    send nobody anywhere else."""
    weight: float = Field(1, ge=0)
    """Its share of what is forwarded, beside the others'. 0 sends nothing new there."""
    publishes: bool = True
    """What is launched there becomes public record, as on mybinder.org. Nothing private is sent to such a peer."""
    anonymous: bool = True
    """It runs things for people without an account there. If not, they connect a token of theirs first."""
    terms_url: str = ""
    """Its terms of use."""
    privacy_url: str = ""
    """Its privacy policy."""
    build_token_secret: SecretStr = SecretStr("")
    """Hexadecimal key of build tokens, where it shares one with this broker: then its rate limit does not count us."""

    @property
    def called(self) -> str:
        """What pages call it."""
        return self.title or urlsplit(self.url).netloc

    @field_validator("url", "binder_url")
    @classmethod
    def _url_takes_tokens(cls, url: str) -> str:
        address = urlsplit(url)
        if url and (not address.hostname or not addresses.takes_secrets(address)):
            raise ValueError("a peer's address begins with https://, as people's tokens are sent there.")
        return url.rstrip("/")

    @field_validator("origins")
    @classmethod
    def _origins_can_be_believed(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if wrong := peers.origin_problem(origin):
                raise ValueError(wrong)
        return origins

    @field_validator("build_token_secret")
    @classmethod
    def _secret_is_hexadecimal(cls, secret: SecretStr) -> SecretStr:
        if re.fullmatch(r"([0-9a-fA-F]{2})*", secret.get_secret_value()) is None:
            raise ValueError("it must be hexadecimal, as `openssl rand -hex 32` prints it.")
        return secret

    @field_validator("terms_url", "privacy_url")
    @classmethod
    def _pages_are_pages(cls, url: str) -> str:
        if url and urlsplit(url).scheme not in ("https", "http"):
            raise ValueError("the address of a page begins with https://.")
        return url


class KeycloakAdministrator(BaseSettings):
    """Who sets Keycloak up, for `anybinder keycloak init` alone. Only of the environment; whoever is not told is asked for."""

    model_config = SettingsConfigDict(env_prefix="ANYBINDER_KEYCLOAK_", frozen=True)

    user: str = ""
    """The administrator's name: ANYBINDER_KEYCLOAK_USER."""
    password: SecretStr = SecretStr("")
    """Their password: ANYBINDER_KEYCLOAK_PASSWORD."""


class BackendSetting(Policy):
    """One backend: a provider, configured and offered to people."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")
    """What it is called in addresses and by `--on`: lower-case letters, digits and hyphens. Accounts are connected by it."""
    provider: str
    """Name of the entry point in the group `anybinder.providers`."""
    title: str = ""
    """What people read. Empty: the provider's own title."""
    configuration: Mapping[str, str] = {}
    """What this kind of provider is told; each has its own list in `docs/reference/providers.md`."""
    open_to: tuple[str, ...] = ("signed in",)
    """Who may use it, in words: `signed in`, `group staff`, `entitlement urn:…`, `affiliation *@uni.example`, `provider campus`.
    One that fits is enough. Visitors need `binder_backend`."""
    sign_in_minutes: float | None = Field(None, gt=0)
    """A launch there needs a sign-in that is not older than this. Empty: `sign_in_hours`."""
    sign_in_level: str = ""
    """A launch there needs a sign-in of this level, an `acr` of the identity provider's."""
    idle_minutes: int | None = None
    """Its own `idle_minutes`. Empty: the broker's."""
    max_hours: float | None = None
    """Its own `max_hours`. Empty: the broker's."""
    max_sessions: int | None = Field(None, ge=0)
    """How many sessions run there at once; further ones wait for a seat. 0 lets nothing new in."""
    max_price: Decimal | None = Field(None, ge=0)
    """The most that one launch there may cost in all, in the currency of its prices; what has no known price is then not
    started. Empty: any price."""
    resources: ResourceSetting = ResourceSetting()
    """What a session gets where nobody asks for more or less."""
    most: ResourceSetting = ResourceSetting()
    """The most that a session may have, whoever asks. Empty: all the backend can give; for visitors what `resources` says."""

    @field_validator("open_to")
    @classmethod
    def _rules_can_be_read(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        for rule in rules:
            if wrong := admission.problem(rule):
                raise ValueError(wrong)
        return rules


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
    identities: tuple[IdentitySetting, ...] = ()
    """OpenID Connect providers that people may sign in with. Empty: the one local person only."""
    sign_in_hours: float = 12
    """A sign-in this recent lets a person launch with their own cloud accounts; it also ends the broker's page session."""
    sign_in_idle_hours: float = 2
    """A browser that was not seen for this long is signed out."""
    token_days: float = 30
    """Longest life of an API token."""

    sealing_keys: SecretStr = SecretStr("")
    """Keys that secrets are sealed with, as `name:key` with commas between; the first seals, all open."""
    sealing_key_file: Path | None = None
    """A file of such keys, one a line. Empty: `sealing.keys` in the state folder, made when first needed."""
    sealing_key_command: str = ""
    """A command that prints such keys, one a line; for a secrets manager. Run without a shell."""
    issuer_key_days: float = 30
    """How often the key changes that signs our tokens for clouds."""
    issuer_overlap_hours: float = 25
    """How long a new key is published before it signs, and an old one after: longer than clouds keep what they have read."""

    database_url: SecretStr = SecretStr("")
    """SQLAlchemy URL. Empty: SQLite in the state folder."""
    redis_url: SecretStr = SecretStr("")
    """Where Celery queues and events fan out. Empty: in this process."""
    workers: int = 8
    """Threads that advance launches in the embedded queue; Celery has its own count."""

    backends: tuple[BackendSetting, ...] = (BackendSetting(name="local", provider="local", title="This computer"),)
    """What launches can run on, best first."""

    sizes: tuple[SizeSetting, ...] = (
        SizeSetting(name="small", title="Small", cpu=1, memory_mb=2048),
        SizeSetting(name="medium", title="Medium", cpu=2, memory_mb=8192),
        SizeSetting(name="large", title="Large", cpu=8, memory_mb=32768),
    )
    """The plain sizes of the launch form, beside what the repository asks for; smallest first. Exact figures go before them."""

    binder_backend: str = ""
    """The backend that `/build` and visitors who are not signed in run on. Empty: none, so such links only lead to the page."""
    binder_peers: Literal["", "relay", "redirect"] = ""
    """What `/build` does without `binder_backend`: `relay` launches at a peer and passes its events on, `redirect` sends the
    client there. Empty: neither."""
    cors_allow_origin: str = ""
    """Which pages elsewhere may use `/build` and, with its token, a session: `*`, or one origin. Thebe and badges want `*`."""
    build_token_secret: SecretStr = SecretStr("")
    """Hexadecimal key of build tokens, where several hubs share it. Empty: this broker's own."""
    build_token_check_origin: bool = True
    """A build token opens `/build` only for the page it was given to."""
    build_token_seconds: float = 300
    """How long a build token is good."""
    rate_limit: int = 10
    """How many launches by `/build` without a build token one address may ask for in `rate_limit_seconds`; 0 for any number."""
    rate_limit_seconds: int = 3600
    """See `rate_limit`."""
    ban_networks: Mapping[str, str] = {}
    """Networks that may use nothing here but `/health` and `/versions`, each with the name they are refused by."""
    api_only: bool = False
    """No pages: only `/build`, `/health`, `/versions`, `/metrics` and what is below `/api/` and `/agent/` answers."""
    build_only: bool = False
    """Let `/build` be asked with `build_only=true` to build an image and start nothing."""
    launch_quota: int | None = None
    """The quota that `/health` tells a federation, when it is another than the seats of `binder_backend`."""
    versions: Mapping[str, Any] = {}
    """What `/versions` answers, where a federation wants it equal to its prime's. Empty: our own."""
    badge_base_url: str = ""
    """The address that badges and `BINDER_LAUNCH_HOST` name, where it is not this broker's own."""
    about_message: str = ""
    """HTML for BinderHub clients that show who runs this hub."""
    banner_html: str = ""
    """HTML that the launch page shows on top; it comes from the operator and is trusted."""

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
    attempts: int = 6
    """How many offers one launch may try at one backend; each zone of one kind of machine is an offer."""
    hedge_seconds: float = 180
    """When a hedged launch orders its second machine, where neither our own history nor the provider says what is usual."""

    git_seconds: float = 60
    """Limit for one look-up of a reference."""
    clone_megabytes: int = 4096
    """A repository that brings more than this is refused."""
    download_megabytes: int = 10_000
    """Files of a session that are more than this, before they are packed, cannot be downloaded as one archive."""
    resolve_cache_seconds: float = 20
    """A reference looked up less than this ago is not asked for again."""
    hosts: Mapping[str, HostSetting] = {}
    """By prefix (`gh`, `gl` …): another address of a kind of repository host, a token for it, and what of it may run."""
    peers: tuple[PeerSetting, ...] = ()
    """Other hubs that launches can be forwarded to; `anybinder peers add` adds more."""
    peer_look_seconds: float = 30
    """How often peers are asked how they are."""
    peer_session_minutes: float = 15
    """How often a session at a peer is asked whether it is still there. Each time counts as activity for that hub's proxy, so
    it is seldom."""
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
        if self.public_url and self.session_domain == "localhost":
            raise ValueError(
                "public_url needs a session_domain of its own, which serves nothing else: sessions live below it."
            )
        return self

    @model_validator(mode="after")
    def _names_and_networks_exist(self) -> Self:
        known = [backend.name for backend in self.backends]
        if self.binder_backend and self.binder_backend not in known:
            raise ValueError(f"binder_backend {self.binder_backend!r} is none of the backends: {', '.join(known)}.")
        called = [*known, *(peer.name for peer in self.peers)]
        if twice := next((name for name in called if called.count(name) > 1), ""):
            raise ValueError(f"two places to run are called {twice!r}: each backend and peer needs a name of its own.")
        for network in self.ban_networks:
            ipaddress.ip_network(network)
        names = [identity.name for identity in self.identities]
        issuers = [identity.issuer for identity in self.identities]
        if len(set(names)) < len(names) or len(set(issuers)) < len(issuers):
            raise ValueError("two of identities have the same name or issuer.")
        return self

    @property
    def own_address(self) -> str:
        """The address under which browsers know this broker, without a slash at its end."""
        return self.public_url.rstrip("/") or f"http://localhost:{self.port}"

    @property
    def served(self) -> bool:
        """True where others than the one local person can reach this broker."""
        return bool(self.public_url) or self.host not in addresses.LOOPBACK

    @property
    def preparing(self) -> dt.timedelta:
        """The longest that a launch may take from its seat to a running session."""
        return dt.timedelta(minutes=self.boot_minutes * self.attempts + self.build_minutes)

    def repo_host(self, prefix: str) -> HostSetting:
        """How repositories of this prefix are asked for, and which may run."""
        return self.hosts.get(prefix, HostSetting())

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


def compiled(pattern: str) -> re.Pattern[str]:
    """This regular expression. Raises ValueError with it, so that whoever wrote it finds it."""
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as fault:
        raise ValueError(f"“{pattern}” is no regular expression: {fault}.") from None


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
