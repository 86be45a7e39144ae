"""The driver of AWS: each verb is a few words; the files beside it say how."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from botocore.exceptions import UnknownRegionError

from providers import prices
from providers.aws import (
    buying,
    consoles,
    ending,
    exchanges,
    forms,
    guides,
    holdings,
    images,
    narrowing,
    networks,
    offers,
    permissions,
    public_prices,
    schedules,
)
from providers.aws.clients import Caller, Place, bare_session
from providers.base import (
    Assertion,
    Connection,
    Credential,
    Guide,
    Instance,
    InstanceState,
    Offer,
    Order,
    Permission,
    Price,
    Provider,
    Resources,
    Trust,
)
from providers.errors import BadCredential, InvalidOrder

CURATED = Path(__file__).with_name("prices.csv")
REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}")


class AwsProvider(Provider):
    """One region of AWS, on people's own accounts. Keeps nothing between calls."""

    title = "Amazon Web Services"
    kinds = forms.KINDS
    settings = forms.SETTINGS
    ends_when_off = True
    user_data_most = buying.USER_DATA_MOST
    # EC2 lists what it has made after a while only: "gradually increase up to five minutes" is how long it says to look.
    # https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
    lists_within = timedelta(minutes=5)

    def __init__(self, configuration: Mapping[str, str]) -> None:
        super().__init__(configuration)
        region = self.configuration.get("region", "")
        if not REGION.fullmatch(region):
            raise InvalidOrder("AWS needs its setting region, like eu-central-1.")
        self.place = Place(
            region=region,
            partition=self.configuration.get("partition") or _partition_of(region),
            endpoint_url=self.configuration.get("endpoint_url", ""),
        )
        self.system = self._chosen("system", images.SYSTEMS)
        self.wanted = offers.Wanted(
            region=region,
            architectures=self._architectures(),
            spot=self._chosen("spot", ("yes", "no")) == "yes",
            disk_gb=self._disk_gb(),
            subnets=_several(self.configuration.get("subnets", "")),
        )

    def _value(self, name: str) -> str:
        default = next(setting.default or "" for setting in self.settings if setting.name == name)
        return self.configuration.get(name) or default

    def _chosen(self, name: str, choices: Collection[str]) -> str:
        value = self._value(name)
        if value not in choices:
            raise InvalidOrder(f"AWS's setting {name} is one of {', '.join(choices)}.")
        return value

    def _architectures(self) -> tuple[str, ...]:
        named = _several(self._value("architectures"))
        if not named or not set(named) <= set(images.CALLED):
            raise InvalidOrder("AWS's setting architectures names x86_64, arm64 or both.")
        return named

    def _disk_gb(self) -> int:
        value = self._value("disk_gb")
        if not value.isdecimal() or not 8 <= int(value) <= 16384:
            raise InvalidOrder("AWS's setting disk_gb is a number from 8 to 16384.")
        return int(value)

    def assertion(self, connection: Connection, about: Mapping[str, str]) -> Assertion | None:
        """With `web_identity` only; the launch, repository and backend become tags of the session."""
        if connection.kind != "web_identity":
            return None
        return Assertion(audience=guides.AUDIENCE, claims=narrowing.tags(about))

    def sign_in(self, connection: Connection, identity_token: str | None) -> Credential:
        """One exchange, sent once. With `web_identity` and a tag, AWS limits the credential to that launch."""
        if connection.kind == "web_identity":
            return exchanges.by_web_identity(self.place, connection, identity_token)
        if connection.kind == "access_key":
            return exchanges.by_access_key(self.place, connection)
        if connection.kind == "profile":
            return exchanges.by_profile(self.place, connection)
        raise BadCredential(f"AWS takes no connection of the kind “{connection.kind}”.")

    def check(self, connection: Connection, credential: Credential) -> list[Permission]:
        """By AWS's own dry runs, which decide as a real call would; nothing is made."""
        caller = Caller(self.place, credential.secret)
        return permissions.tried(caller, self.place, connection, credential, self.system)

    def prices(self) -> Sequence[Price]:
        """What is known of this region: the curated table, and what was read from AWS's own list since."""
        read = Path(self.configuration["prices"]) if self.configuration.get("prices") else CURATED
        return [price for price in prices.table(CURATED, read).values() if price.region == self.place.region]

    def public_prices(self) -> list[Price]:
        """AWS's public price list of this region, hundreds of megabytes of it."""
        return public_prices.read(self.place, host=self.place.endpoint_url)

    def guide(self, kind: str, trust: Trust, settings: Mapping[str, str]) -> Guide:
        """For `web_identity` a link where the operator has the template in S3, and a script in any case."""
        written = {"web_identity": guides.web_identity, "access_key": guides.access_key, "profile": guides.profile}
        if kind not in written:
            raise InvalidOrder(f"AWS takes no connection of the kind “{kind}”.")
        return written[kind](self.place, trust, settings, self.configuration.get("template_url", ""))

    def offers(self, credential: Credential, resources: Resources) -> list[Offer]:
        """Three or four questions to EC2; where an account has no network there, InvalidOrder says how to make one."""
        return offers.made(self._caller(credential), self.wanted, resources, self.prices())

    def provision(self, credential: Credential, order: Order) -> Instance:
        """The order's id is the client token. A group is made before, and a schedule after, where there is a role for it."""
        choice, caller = offers.chosen(order.offer.id), self._caller(credential)
        image = images.newest(caller, self.system, offers.architecture(order.offer))
        network = networks.found(caller, self.place.region, self.wanted.subnets) if self.wanted.subnets else None
        if network and choice.zone not in network.subnets:
            raise InvalidOrder(f"There is no subnet in {choice.zone} any more. Choose another zone.")
        bought = buying.buy(caller, order, image, network, self.place.region)
        switch = schedules.switch(credential, self.place)
        if bought.state is InstanceState.GONE:
            return self.describe(credential, bought.id)
        if (
            switch
            and bought.state is not InstanceState.STOPPING
            and (armed := schedules.arm(caller, switch, order, bought.id))
        ):
            return replace(bought, parts=(*bought.parts, armed))
        return bought

    def describe(self, credential: Credential, instance_id: str) -> Instance:
        """One question while it lives; once it is terminated its parts are looked for, too."""
        switch = schedules.switch(credential, self.place)
        return holdings.described(self._caller(credential), switch, instance_id)

    def terminate(self, credential: Credential, instance_id: str | None, order_id: str) -> None:
        """Each call does what can be done now: what waits for the machine's end is ended by a later one."""
        switch = schedules.switch(credential, self.place)
        ending.end(self._caller(credential), switch, instance_id, order_id)

    def instances(self, credential: Credential, broker: str) -> list[Instance]:
        """Machines, volumes, interfaces, groups and schedules, an order's together."""
        switch = schedules.switch(credential, self.place)
        return holdings.listed(self._caller(credential), switch, broker)

    def logs(self, credential: Credential, instance_id: str) -> str:
        """What the machine has written on its serial console; EC2 shows it some minutes late."""
        return consoles.read(self._caller(credential), instance_id)

    def _caller(self, credential: Credential) -> Caller:
        return Caller(self.place, credential.secret)


def _partition_of(region: str) -> str:
    try:
        return str(bare_session().get_partition_for_region(region))
    except UnknownRegionError:
        raise InvalidOrder(f"AWS has no region {region}. Correct it, or name its partition.") from None


def _several(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
