"""What `/build` was asked for: its launch, and what BinderHub's clients are told of it, in BinderHub's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

from broker import backends, errors, events, launches, metrics, people, repos, sessions, wishes
from broker.forwarding import choosing, entering
from broker.models import Launch, Phase, State
from broker.repos import errors as repo_errors
from broker.repos import urls
from broker.service import Service
from broker.web import figures

FIRST_EVENT = {"phase": "waiting", "message": "Waiting for build to start...\n"}
ENDED = "This session has ended. Launch the repository again."
_OURS = ("id", "at", "phase", "state", "message", "reason")  # of a line; what else it has is told as it is


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request to `/build`. `spec` is as it was sent, still quoted."""

    prefix: str
    spec: str
    person: people.Person
    backend: str
    """Where it is to run; empty where this hub names no place for such requests."""
    client: str
    launch_host: str
    """The address that this hub is known by, with a slash at its end."""
    browser: bool
    """A page asks, so it is told an address that only browsers can resolve."""
    build_only: bool = False

    @property
    def key(self) -> str:
        """How BinderHub writes it in its sentences."""
        return f"{self.prefix}:{self.spec}"


class Failed(Exception):
    """There will be no launch; `event` says why, with a status where BinderHub gives one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.event = failed(message, status)


def failed(message: str, status: int | None = None) -> dict[str, Any]:
    """The last event of a stream that came to nothing."""
    code = {} if status is None else {"status_code": status}
    return {"phase": "failed", **code, "message": _line(message)}


# --- the launch ---------------------------------------------------------------------------------------------------------


def requested(service: Service, asked: Asked, launch_id: str) -> Launch:
    """The launch of this id, asked for unless there is one. Blocks while the repository is looked up.

    May be repeated, by several at once. Raises Failed, BrokerError.
    """
    if known := _row(service, launch_id):
        return known
    if asked.prefix not in repos.providers:
        raise Failed(f"No provider found for prefix {asked.prefix}")
    found = _found(service, asked)
    wish = wishes.Wish(
        repo=str(found.spec),
        backend=_backend(service, asked, found),
        launch_id=launch_id,
        asked_from="build",
        build_only=asked.build_only,
        request={
            "binder_ref_url": found.web_url,
            "binder_launch_host": asked.launch_host,
            "binder_request": f"v2/{asked.prefix}/{asked.spec}",
            "binder_persistent_request": f"v2/{found.spec_string}",
            "binder_client_ip": asked.client,
        },
    )
    try:
        return launches.request(service, asked.person, wish)[0]
    except errors.RepoQuota:
        metrics.LAUNCH_COUNT.labels("repo_quota", *figures.labels(found.spec_string, found.repo_url)).inc()
        raise


def _found(service: Service, asked: Asked) -> repos.Resolved:
    try:
        spec = repos.providers[asked.prefix].parse(urls.clean(asked.spec))
    except repo_errors.RepoError as error:
        form = f'Spec is not of the form "user/repo/ref", provided: "{asked.spec}". ' if asked.prefix == "gh" else ""
        raise Failed(f"{form}{error}") from None
    try:
        return service.repos.resolve(spec)
    except repo_errors.NotFound:
        raise Failed(
            f"Could not resolve ref for {asked.key}. Double check your URL and that your repo is public."
        ) from None
    except repo_errors.RepoError as error:
        raise Failed(f"Error resolving ref for {asked.key}: {error}") from None


def _backend(service: Service, asked: Asked, found: repos.Resolved) -> str:
    if not asked.backend and service.settings.binder_peers:
        return ""  # which of the peers is for `wishes` to say
    if not asked.backend:
        raise Failed(
            "This hub runs nothing straight from a link to /build. "
            f"Open {asked.launch_host}v2/{asked.prefix}/{asked.spec} in a browser and choose where to run it."
        )
    if choosing.is_peer(service, asked.backend):
        return asked.backend
    if asked.person.anonymous and backends.named(service, asked.backend).setting.max_sessions == 0:
        metrics.LAUNCH_COUNT.labels("pod_quota", *figures.labels(found.spec_string, found.repo_url)).inc()
        raise Failed("Too many users on this BinderHub! Try again soon.")
    return asked.backend


def exists(service: Service, launch_id: str) -> bool:
    """Whether this launch has been asked for."""
    return _row(service, launch_id) is not None


def seen_all(service: Service, launch_id: str, after: int) -> bool:
    """Whether a stream that had come to this line has nothing more to say."""
    row = _row(service, launch_id)
    return row is not None and events.finished(service, launch_id) and not events.read(service, launch_id, after, 1)


def _row(service: Service, launch_id: str) -> Launch | None:
    """Whosever launch it is: its id is not guessed, it comes from our own signature."""
    try:
        return launches.get(service, people.bearer(launch_id), launch_id)
    except errors.NotFound:
        return None


# --- what is told -------------------------------------------------------------------------------------------------------


def told(service: Service, asked: Asked, launch_id: str, line: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """A line of the launch as BinderHub's clients know it, and whether it is the last they are told."""
    if line["phase"] == Phase.FAILED:
        return failed(line["message"]), True
    if line["phase"] == Phase.READY:
        return _ready(service, asked, launch_id), True
    more = {name: value for name, value in line.items() if name not in _OURS}
    # A line between two phases is the broker's own, which is looking for a place to run.
    return {"phase": line["phase"] or "waiting", "message": _line(line["message"]), **more}, False


def _ready(service: Service, asked: Asked, launch_id: str) -> dict[str, Any]:
    launch = launches.get(service, people.bearer(launch_id), launch_id)
    if launch.build_only:
        return {"phase": "ready", "message": "Done! The image is built.\n", "imageName": launch.image}
    if there := entering.entry(service, launch):
        said = {"phase": "ready", "message": f"server running at {there.url}\n", **there.way_in.more}
        return {**said, "token": there.token, "url": there.url, "launch": launch.id}
    if launch.state is not State.READY or launch.stop_wanted:
        return failed(ENDED)
    own = asked.browser or service.settings.public_url
    url = urljoin(sessions.url(service, launch), "/") if own else sessions.script_url(service, launch)
    return {
        "phase": "ready",
        "message": f"server running at {url}\n",
        "image": launch.image or launch.spec,
        "repo_url": launch.repo_url,
        "token": sessions.launch_token(service, launch.id),
        "binder_ref_url": launch.web_url,
        "binder_launch_host": asked.launch_host,
        "binder_request": f"v2/{asked.prefix}/{asked.spec}",
        "binder_persistent_request": f"v2/{launch.spec}",
        "binder_client_ip": asked.client,
        **launch.request,
        "url": url,
        "launch": launch.id,
    }


def _line(message: str) -> str:
    return message if message.endswith("\n") else f"{message}\n"
