"""The driver of OpenStack: each verb signs nothing in, keeps nothing, and asks a handful of the cloud's own questions.

A person's account is reached in one of two ways, the better first: the cloud trusts this broker as an OpenID issuer (only
where the operator says so), or the person makes an application credential that may do what `needs` lists and nothing else.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from keystoneauth1 import access

from providers import base
from providers.errors import BadCredential, InvalidOrder, ProviderError
from providers.openstack import (
    buying,
    clouds,
    consoles,
    dead_men,
    ending,
    guides,
    keystone,
    labels,
    looking,
    offers,
    refusals,
    servers,
    taking,
    trying,
)
from providers.openstack.keystone import Cloudy
from providers.openstack.services import Services
from providers.sentences import say

ID = r"[0-9a-f]{32}"
DAY = r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?Z?)?"

APPLICATION_CREDENTIAL = base.Kind(
    name="application_credential",
    title=say("Application credential"),
    tier=base.Tier.DELEGATED,
    fields=(
        base.Setting(
            name="id",
            title=say("Id"),
            help=say("The 32 characters that the cloud shows as the id of the application credential."),
            required=True,
            pattern=ID,
            example="21dced0fd20347869b93710d2b98aae0",
        ),
        base.Setting(
            name="secret",
            title=say("Secret"),
            help=say(
                "The cloud shows it once, when the application credential is made. Of two, both: with a space between."
            ),
            required=True,
            secret=True,
            pattern=r"\S{8,255}( +\S{8,255})?",
        ),
        base.Setting(
            name="reap_id",
            title=say("Second id"),
            help=say(
                "Of a second application credential that may look and delete, and start nothing. "
                "Cleaning up signs in with it."
            ),
            pattern=ID,
            example="8f3c1a52e0b94cd29d1f6a70a1b2c3d4",
        ),
        base.Setting(
            name="ends",
            title=say("Ends at (UTC)"),
            help=say(
                "When it expires, as the cloud shows it. It is needed only where the cloud does not tell us by itself."
            ),
            pattern=DAY,
            example="2027-02-28T12:00:00",
        ),
    ),
)
OIDC = base.Kind(
    name="oidc",
    title=say("Trust this broker, without a key"),
    tier=base.Tier.KEYLESS,
    fields=(
        base.Setting(
            name="project",
            title=say("Project id"),
            help=say("The project that machines are started in. Its dashboard shows the id under Identity → Projects."),
            required=True,
            pattern=r"[0-9a-zA-Z_-]{1,64}",
            example="28f3a8b2ff7045b2b05d42d25ce18b80",
        ),
    ),
)


class OpenStackProvider(base.Provider):
    """One OpenStack cloud, as the operator names it. An instance's id is its name, which follows from its order."""

    title = "OpenStack"
    user_data_most = servers.USER_DATA_MOST
    lists_within = dt.timedelta(seconds=60)
    settings: ClassVar[Sequence[base.Setting]] = (
        base.Setting(
            name="preset",
            help=f"A cloud whose address is known here: {', '.join(clouds.presets())}.",
            choices=tuple(clouds.presets()),
        ),
        base.Setting(
            name="auth_url",
            help="The https address of another cloud's Keystone.",
            example="https://cloud.example.org:5000/v3",
        ),
        base.Setting(name="region", help="Which of the cloud's regions; needed where it has more than one."),
        base.Setting(
            name="image",
            help="Name or id of the image that machines start from. Empty: the newest stock Debian or Ubuntu of the cloud.",
        ),
        base.Setting(
            name="network",
            help="Name or id of the network that machines are on. Empty: the only one of the project.",
        ),
        base.Setting(
            name="floating_network",
            help="The outside network, only where nothing can dial out without an address of it: each machine then gets one.",
            example="public",
        ),
        base.Setting(
            name="zone", help="Availability zone that machines are started in, where the cloud wants one to be named."
        ),
        base.Setting(
            name="volume_gb",
            help="GB of a boot volume, made and deleted with each machine. Empty: the disk of the flavor, where it has one.",
            pattern=r"[1-9][0-9]{0,3}",
        ),
        base.Setting(
            name="config_drive",
            help="Whether machines are told what to do on a drive: yes or no. Empty: as the cloud's preset says.",
            choices=("yes", "no"),
        ),
        base.Setting(
            name="own_servers",
            help="Whether people may also run on servers that they have made in their project themselves: yes or no.",
            default="yes",
            choices=("yes", "no"),
        ),
        base.Setting(
            name="credentials_page", help="Address of the dashboard's page where people make application credentials."
        ),
        base.Setting(
            name="identity_provider",
            help="What the cloud's Keystone calls this broker, where it trusts it. Empty: it does not.",
        ),
        base.Setting(name="protocol", help="What Keystone calls the protocol of that trust.", default="openid"),
        base.Setting(
            name="audience",
            help="What our tokens for this cloud must name as their audience. Empty: the address of its Keystone.",
        ),
        base.Setting(
            name="ca_file",
            help="File with the authority that signed the cloud's certificate, where it is one of its own.",
        ),
    )

    def __init__(self, configuration: Mapping[str, str]) -> None:
        super().__init__(configuration)
        self.cloud = clouds.chosen(configuration)
        if (file := configuration.get("ca_file", "")) and not Path(file).is_file():
            raise InvalidOrder(f"“ca_file” names {file}, which is not there.")
        volume = configuration.get("volume_gb") or "0"
        if not volume.isdigit():
            raise InvalidOrder("“volume_gb” is a number of GB, like 40.")
        self.volume_gb = int(volume)
        self.own_servers = configuration.get("own_servers", "yes") != "no"
        self.choices = buying.Choices(image=configuration.get("image", ""), network=configuration.get("network", ""))
        self.identity_provider = configuration.get("identity_provider", "")
        self.protocol = configuration.get("protocol") or "openid"
        self.kinds = (*([OIDC] if self.identity_provider else []), APPLICATION_CREDENTIAL)

    def assertion(self, connection: base.Connection, about: Mapping[str, str]) -> base.Assertion | None:  # noqa: ARG002
        """Keystone's mapping can test nothing but who it is, so nothing of the launch is told."""
        if connection.kind != OIDC.name:
            return None
        return base.Assertion(audience=self.configuration.get("audience") or self.cloud.auth_url)

    def sign_in(self, connection: base.Connection, identity_token: str | None) -> base.Credential:
        """Two requests, to this cloud's Keystone only."""
        with self._asked() as cloudy:
            if connection.kind == OIDC.name and self.identity_provider:
                return self._by_token(cloudy, connection, identity_token)
            if connection.kind == APPLICATION_CREDENTIAL.name:
                return self._by_credential(cloudy, connection)
        raise BadCredential("Accounts are not connected in this way here. Connect yours again.")

    def check(self, connection: base.Connection, credential: base.Credential) -> list[base.Permission]:
        """By asking the services for a little of each list, and by the access rules that the token itself names."""
        with self._asked() as cloudy:
            return trying.permissions(cloudy, keystone.known(credential), connection.purpose)

    def guide(self, kind: str, trust: base.Trust, settings: Mapping[str, str]) -> base.Guide:
        """The script makes the narrowest credential that works."""
        if kind == APPLICATION_CREDENTIAL.name:
            return guides.application_credential(self.cloud, trust)
        if kind == OIDC.name and self.identity_provider:
            return guides.oidc(self.identity_provider, trust, settings)
        raise InvalidOrder(f"{self.title} takes no connection of the kind “{kind}” here.")

    def offers(self, credential: base.Credential, resources: base.Resources) -> list[base.Offer]:
        """Each flavor of the cloud that is large enough. What is beyond the quota is among them, and says so.

        After them the project's own servers that run and are large enough, which nobody need buy.
        """
        with self._services(credential) as services:
            zone = self.configuration.get("zone", "")
            found = offers.listed(services, self.cloud, resources, zone=zone, volume_gb=self.volume_gb)
            own = taking.offered(services, self.cloud, resources) if self.own_servers else []
            return [*found, *own]

    def provision(self, credential: base.Credential, order: base.Order) -> base.Instance:
        """See `buying` for the steps, and `claims` for why no order is bought twice; `taking` buys nothing."""
        with self._services(credential) as services:
            if server := taking.server_of(order.offer.id):
                return taking.taken(services, order, server)
            return buying.bought(services, self.cloud, self.choices, order)

    def describe(self, credential: base.Credential, instance_id: str) -> base.Instance:
        """One question while there is a machine."""
        if taken := labels.order_taken(instance_id):
            with self._services(credential) as services:
                return taking.seen(services, taken)
        order_id = labels.order_of(instance_id)
        if not order_id:
            return base.Instance(id=instance_id, tag=None, state=base.InstanceState.GONE)
        with self._services(credential) as services:
            if found := servers.settle(services, order_id):
                return looking.instance(found)
            return ending.seen(services, order_id)

    def terminate(self, credential: base.Credential, instance_id: str | None, order_id: str) -> None:
        """By the order alone: a bought machine's name says nothing more. What runs on somebody's own server deletes none."""
        with self._services(credential) as services:
            if labels.order_taken(instance_id or ""):
                taking.released(services, order_id)
            else:
                ending.ended(services, order_id, bought=bool(labels.order_of(instance_id or "")))

    def instances(self, credential: base.Credential, broker: str) -> list[base.Instance]:
        """One for each order of which anything is left: a machine, a firewall, a claim."""
        with self._services(credential) as services:
            return looking.of_broker(services, broker)

    def dead_man(self, credential: base.Credential, instance: base.Instance) -> base.DeadMan | None:
        """An application credential that may delete this machine, and nothing else; None where none can be made."""
        with self._services(credential) as services:
            return dead_men.made(services, instance)

    def logs(self, credential: base.Credential, instance_id: str) -> str:
        """The end of its serial console, where the cloud shows it and the credential may ask."""
        order_id = labels.order_of(instance_id)
        if not order_id:
            return ""
        with self._services(credential) as services:
            return consoles.end_of(services, order_id)

    @contextlib.contextmanager
    def _services(self, credential: base.Credential) -> Iterator[Services]:
        with self._asked() as cloudy:
            try:
                yield Services(cloudy, keystone.known(credential))
            except ProviderError as error:
                raise refusals.plain(error) from None

    def _asked(self) -> Cloudy:
        return Cloudy(self.cloud, self.configuration.get("ca_file", ""))

    def _by_token(self, cloudy: Cloudy, connection: base.Connection, token: str | None) -> base.Credential:
        if not token:
            raise BadCredential("This cloud is signed in to with a token of this broker's, and there was none.")
        known = cloudy.by_token(self.identity_provider, self.protocol, token, connection.settings.get("project", ""))
        return _credential(known, reaches=None)

    def _by_credential(self, cloudy: Cloudy, connection: base.Connection) -> base.Credential:
        typed = _typed_end(connection.settings.get("ends", ""))
        known = cloudy.by_credential(*_of_purpose(connection), typed)
        told, ends = cloudy.end_of(known)
        if told:
            return _credential(known, reaches=ends)
        # The cloud does not say. Its token ends with the credential at the latest, so it reaches that far for certain;
        # farther only by the word of the person who made it.
        return _credential(known, reaches=max(filter(None, (typed, known.expires))))


def _of_purpose(connection: base.Connection) -> tuple[str, str]:
    """Id and secret of the credential for what this is about: there may be a second one, which can only clean up."""
    first, *second = (connection.secret or "").split() or [""]
    reap_id = connection.settings.get("reap_id", "")
    if bool(reap_id) != bool(second):
        raise BadCredential(
            "With a second application credential its id and its secret are both needed: the secret stands behind the first "
            "one, after a space. Connect the account again."
        )
    if reap_id and connection.purpose is base.Purpose.REAP:
        return reap_id, second[0]
    return connection.settings.get("id", ""), first


def _credential(known: access.AccessInfoV3, reaches: dt.datetime | None) -> base.Credential:
    return base.Credential(
        who=keystone.who(known), expires_at=known.expires, secret=keystone.kept(known), reaches=reaches
    )


def _typed_end(typed: str) -> dt.datetime | None:
    """The end of the day where a person typed only a day is not certain: its beginning is."""
    try:
        return keystone.when(typed) if typed else None
    except ValueError:
        raise BadCredential("“Ends at” is no date. Type it like 2027-02-28, or leave it empty.") from None
