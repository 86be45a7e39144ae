"""Backends: providers, configured and offered to people. The only module that looks a provider up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from broker import admission, errors, probe, repos, settings
from broker.people import Person
from broker.service import Service
from providers import base
from providers import errors as clouds
from providers.sentences import say

GROUP = "anybinder.providers"


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One place to run, as this broker offers it."""

    name: str
    title: str
    provider: base.Provider
    setting: settings.BackendSetting

    def closed_to(self, service: Service, person: Person) -> str | None:
        """Why this person cannot use it, in a sentence that says what to do; None where they can."""
        if self.setting.max_sessions == 0:
            return say("It takes no new sessions at the moment. Choose another place, or come back later.")
        visiting = person.anonymous and self.name == service.settings.binder_backend
        if not visiting and (refusal := admission.refusal(self.setting.open_to, person)):
            return refusal
        if not self.provider.confined:
            if service.settings.served or person.anonymous:
                return say(
                    "It would run a stranger's code as the person who runs this broker, so it is not offered here."
                )
            if not person.local:
                return say("Only the person at this computer may run things on it.")
        return self.out_of_reach(service)

    def shown_to(self, service: Service, person: Person) -> bool:
        """Whether this person is told that it is there. Visitors hear of what they may use, and of what signing in would open."""
        return not person.anonymous or "signed in" in self.setting.open_to or self.closed_to(service, person) is None

    def out_of_reach(self, service: Service) -> str | None:
        """Why what is there could not reach this broker, in a sentence; None where it can (see `probe.refusal`)."""
        near = self.provider.on_this_computer or self.provider.dials_loopback
        return None if near else probe.refusal(service)

    def require_recent_sign_in(self, service: Service, person: Person) -> None:
        """Raises SignInAgain where this place asks for a sign-in that is newer or stronger than this person's."""
        asked = self.setting
        admission.require_recent(
            person, service.now(), minutes=asked.sign_in_minutes, level=asked.sign_in_level, title=f"“{self.title}”"
        )

    @property
    def usual(self) -> base.Resources:
        """What a session has there where nobody asks for anything."""
        return base.Resources(**self.setting.resources.model_dump())

    def longest(self, service: Service) -> float:
        """How many hours a session may last there."""
        return self.setting.max_hours or service.settings.max_hours

    def idle_minutes(self, service: Service) -> float:
        """For how long a session may lie there unused."""
        return self.setting.idle_minutes or service.settings.idle_minutes

    def most(self, person: Person) -> base.Resources:
        """The most that a session of theirs may have. A visitor's repository does not choose how much of the operator's
        computer it gets."""
        limits, default = self.setting.most.model_dump(), self.setting.resources.model_dump()
        if person.anonymous:
            limits = {name: default[name] if limit is None else limit for name, limit in limits.items()}
        return base.Resources(**limits)

    @property
    def asks_for_account(self) -> bool:
        """True where a person runs on an account of their own, which they connect first."""
        return base.NOBODY not in self.provider.kinds

    def kind(self, name: str) -> base.Kind:
        """The way of connecting of this name. Raises BadCredential: one that is no longer offered opens nothing."""
        for kind in self.provider.kinds:
            if kind.name == name:
                return kind
        raise clouds.BadCredential(say("Accounts are no longer connected in this way there. Connect yours again."))

    def kinds_for(self, person: Person) -> list[base.Kind]:
        """The ways in which this person can connect an account, best first."""
        closed = {base.Tier.NONE} if person.local else {base.Tier.NONE, base.Tier.AMBIENT}
        return [kind for kind in self.provider.kinds if kind.tier not in closed]

    def account(self) -> Account:
        """Signed in as nobody in particular, where the compute is the operator's. Asks the cloud; raises ProviderError."""
        return Account(backend=self, credential=self.provider.sign_in(base.Connection(kind=base.NOBODY.name), None))


@dataclass(frozen=True, kw_only=True)
class Account:
    """A backend with a credential: the contract's verbs without repeating it. Every verb asks the cloud."""

    backend: Backend
    credential: base.Credential = field(repr=False)
    forget: Callable[[], object] = field(default=lambda: None, repr=False)
    """Called when the cloud refuses the credential: it may end there earlier than was said, and is not to be used again."""

    def offers(self, resources: base.Resources) -> list[base.Offer]:
        """See Provider.offers."""
        with self._refusals():
            return self.backend.provider.offers(self.credential, resources)

    def provision(self, order: base.Order) -> base.Instance:
        """See Provider.provision."""
        with self._refusals():
            return self.backend.provider.provision(self.credential, order)

    def describe(self, instance_id: str) -> base.Instance:
        """See Provider.describe."""
        with self._refusals():
            return self.backend.provider.describe(self.credential, instance_id)

    def terminate(self, instance_id: str | None, order_id: str) -> None:
        """See Provider.terminate."""
        with self._refusals():
            self.backend.provider.terminate(self.credential, instance_id, order_id)

    def instances(self, broker_id: str) -> list[base.Instance]:
        """See Provider.instances."""
        with self._refusals():
            return self.backend.provider.instances(self.credential, broker_id)

    def dead_man(self, instance: base.Instance) -> base.DeadMan | None:
        """See Provider.dead_man."""
        with self._refusals():
            return self.backend.provider.dead_man(self.credential, instance)

    def logs(self, instance_id: str) -> str:
        """See Provider.logs."""
        with self._refusals():
            return self.backend.provider.logs(self.credential, instance_id)

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except clouds.BadCredential:
            self.forget()
            raise


def offered(service: Service) -> list[Backend]:
    """Every configured backend, in the operator's order. Cheap after the first call."""
    return list(_configured(service).values())


def named(service: Service, name: str) -> Backend:
    """The backend of this name. Raises BadRequest."""
    configured = _configured(service)
    if name not in configured:
        raise errors.BadRequest(f"There is no backend called “{name}”. Choose one of: {', '.join(configured)}.")
    return configured[name]


def look_outward(service: Service) -> None:
    """Begin to find out whether machines elsewhere can reach this broker, where a backend needs that. Returns at once."""
    if any(not (each.provider.on_this_computer or each.provider.dials_loopback) for each in offered(service)):
        probe.begin(service)


def installed() -> dict[str, metadata.EntryPoint]:
    """Every installed kind of compute by the name of its entry point, not yet imported: SDKs are heavy."""
    return {point.name: point for point in metadata.entry_points(group=GROUP)}


def _configured(service: Service) -> dict[str, Backend]:
    """Built once a service, so that a provider may keep a connection pool."""
    if not service.backends:
        service.backends.update(
            {setting.name: _build(service.settings, setting) for setting in service.settings.backends}
        )
    return service.backends


def check(chosen: settings.Settings) -> None:
    """Raises BadRequest or a ProviderError, with a sentence, where a backend or host cannot be what its setting says."""
    for setting in chosen.backends:
        _build(chosen, setting)
    unknown = sorted(set(chosen.hosts) - {*repos.providers, "doi"})
    if unknown:
        raise errors.BadRequest(f"hosts.{unknown[0]}: the hosts are {', '.join(sorted(repos.providers))} and doi.")


def _build(chosen: settings.Settings, setting: settings.BackendSetting) -> Backend:
    kinds = installed()
    if setting.provider not in kinds:
        raise errors.BadRequest(
            f"The backend “{setting.name}” names the provider “{setting.provider}”, which is not installed. "
            f"Installed are: {', '.join(sorted(kinds))}."
        )
    kind = _loaded(kinds[setting.provider], setting)
    known = [each.name for each in kind.settings]
    for name in setting.configuration:
        if name not in known:
            raise errors.BadRequest(
                f"The backend “{setting.name}” sets “{name}”, which “{setting.provider}” does not have. "
                f"It has: {', '.join(known)}."
            )
    provider = kind({**_places(chosen, kind), **_tables(chosen, setting, known), **setting.configuration})
    title = kind.title if setting.title in ("", kind.title) else setting.title  # ours knows other languages
    return Backend(name=setting.name, title=title, provider=provider, setting=setting)


def _loaded(point: metadata.EntryPoint, setting: settings.BackendSetting) -> type[base.Provider]:
    try:
        kind: type[base.Provider] = point.load()
    except ImportError as lacking:
        raise errors.BadRequest(
            f"The backend “{setting.name}” needs packages that are not installed ({lacking.name}). "
            f"Install Anybinder with its extra “{setting.provider}”, or take this backend out of the settings."
        ) from None
    return kind


def prices_file(chosen: settings.Settings, name: str) -> Path:
    """Where what the public price list of this backend's cloud said is kept."""
    return chosen.home / "prices" / f"{name}.csv"


def _tables(chosen: settings.Settings, setting: settings.BackendSetting, known: Sequence[str]) -> Mapping[str, str]:
    """For a provider that reads prices from a file."""
    return {"prices": str(prices_file(chosen, setting.name))} if "prices" in known else {}


def _places(chosen: settings.Settings, kind: type[base.Provider]) -> Mapping[str, str]:
    """Where a provider on this computer keeps what it makes."""
    if not kind.on_this_computer:
        return {}
    return {
        "home": str(chosen.home / "instances"),
        "runtime": str(chosen.runtime),
        "cache": str(chosen.home / "environments"),
        "local_tcp_servers": str(chosen.local_tcp_servers).lower(),
        "python_downloads": str(chosen.python_downloads).lower(),
    }
