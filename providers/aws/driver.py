"""The driver of AWS: one exchange for each kind of connection, and what the account permits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from botocore.exceptions import BotoCoreError, UnknownRegionError

from providers import prices
from providers.accounts_only import AccountsOnly
from providers.aws import guides, narrowing, permissions, public_prices
from providers.aws.clients import Caller, Keys, Place, bare_session, profile_keys
from providers.base import (
    Assertion,
    Connection,
    Credential,
    Guide,
    Kind,
    Permission,
    Price,
    Provider,
    Setting,
    Tier,
    Trust,
)
from providers.errors import BadCredential, InvalidOrder

SESSION_SECONDS = 900  # the shortest that AWS makes
ACCOUNT = Setting(
    name="account",
    title="Account number",
    help="The 12 digits of your AWS account: in the console, the menu at the top right shows them.",
    required=True,
    pattern=r"[0-9]{12}",
    example="123456789012",
)
KEY_ID = Setting(
    name="access_key_id",
    title="Access key id",
    help="The public half of the access key; it begins with AKIA.",
    required=True,
    pattern=r"AKIA[A-Z0-9]{12,124}",
    example="AKIAIOSFODNN7EXAMPLE",
)
KEY_SECRET = Setting(
    name="secret_access_key",
    title="Secret access key",
    help="The secret half. It is sealed, and used only to ask AWS for credentials of minutes.",
    required=True,
    secret=True,
    pattern=r"[A-Za-z0-9/+=]{16,128}",
)
PROFILE = Setting(
    name="profile",
    title="Profile",
    help="The name of a profile in the AWS files of this computer, as `aws configure list-profiles` shows it.",
    required=True,
    pattern=r"[\w.@+-][\w.@+ -]{0,63}",
    example="default",
)
CURATED = Path(__file__).with_name("prices.csv")
REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}")


class AwsProvider(AccountsOnly, Provider):
    """One region of AWS, on people's own accounts. Keeps nothing between calls."""

    title = "Amazon Web Services"
    kinds = (
        Kind(name="web_identity", title="Your account trusts this broker", tier=Tier.KEYLESS, fields=(ACCOUNT,)),
        Kind(name="access_key", title="An access key", tier=Tier.KEPT, fields=(KEY_ID, KEY_SECRET)),
        Kind(name="profile", title="A profile of this computer", tier=Tier.AMBIENT, fields=(PROFILE,)),
    )
    settings = (
        Setting(name="region", help="The region to run in, like eu-central-1.", required=True),
        Setting(
            name="template_url",
            help="Address of the operator's copy of the CloudFormation template in S3. With it people connect by one link, "
            "without by a script that they paste.",
        ),
        Setting(name="partition", help="aws, aws-cn, aws-us-gov or a private one. Empty: the one of the region."),
        Setting(
            name="endpoint_url",
            help="Address of a private partition that answers for every service. Empty: AWS's own addresses.",
        ),
        Setting(
            name="prices",
            help="File with what the public price list said. Empty: what `anybinder prices refresh` has written.",
        ),
    )

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

    def assertion(self, connection: Connection, about: Mapping[str, str]) -> Assertion | None:
        """With `web_identity` only; the launch, repository and backend become tags of the session."""
        if connection.kind != "web_identity":
            return None
        return Assertion(audience=guides.AUDIENCE, claims=narrowing.tags(about))

    def sign_in(self, connection: Connection, identity_token: str | None) -> Credential:
        """One exchange, sent once. With `web_identity` and a tag, AWS limits the credential to that launch."""
        if connection.kind == "web_identity":
            return self._by_web_identity(connection, identity_token)
        if connection.kind == "access_key":
            return self._by_access_key(connection)
        if connection.kind == "profile":
            return self._by_profile(connection)
        raise BadCredential(f"AWS takes no connection of the kind “{connection.kind}”.")

    def check(self, connection: Connection, credential: Credential) -> list[Permission]:
        """By AWS's own dry runs, which decide as a real call would; nothing is made."""
        caller = Caller(self.place, credential.secret)
        return permissions.tried(caller, self.place, connection)

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

    def _by_web_identity(self, connection: Connection, identity_token: str | None) -> Credential:
        account = connection.settings.get("account", "")
        if not re.fullmatch(r"[0-9]{12}", account):
            raise BadCredential("The number of the AWS account is missing. Connect the account again.")
        if not identity_token:
            raise BadCredential("This broker brought no token of its own, and nothing else opens the account.")
        role = guides.role_name(connection.purpose, connection.subject)
        asked = {
            "RoleArn": f"arn:{self.place.partition}:iam::{account}:role/{role}",
            "RoleSessionName": f"anybinder-{connection.tag.launch if connection.tag else connection.purpose.value}",
            "WebIdentityToken": identity_token,
            "DurationSeconds": SESSION_SECONDS,
        }
        if connection.tag:
            asked["Policy"] = narrowing.policy(connection.tag, connection.purpose)
        answer = Caller(self.place).ask("sts", "AssumeRoleWithWebIdentity", **asked)
        return _credential(answer["AssumedRoleUser"]["Arn"], answer["Credentials"])

    def _by_access_key(self, connection: Connection) -> Credential:
        """The long key signs this one call; what works with the account, and lies in memory, ends in minutes."""
        keys = {
            "access_key_id": connection.settings.get("access_key_id", ""),
            "secret_access_key": connection.secret or "",
        }
        if not all(keys.values()):
            raise BadCredential("The access key is missing. Connect the account again.")
        return self._in_exchange(keys)

    def _by_profile(self, connection: Connection) -> Credential:
        name = connection.settings.get("profile", "")
        try:
            keys = profile_keys(name)
        except BotoCoreError as error:
            raise BadCredential(
                f"The profile “{name}” does not sign in ({type(error).__name__}). Try `aws sts get-caller-identity`."
            ) from None
        if keys is None:
            raise BadCredential(f"The profile “{name}” has nothing to sign in with. Run `aws configure` for it.")
        if "session_token" not in keys:
            return self._in_exchange(keys)
        ends = datetime.now(UTC) + timedelta(seconds=SESSION_SECONDS)  # not told how long it is good for, we ask again
        return Credential(who=self._who(keys), expires_at=ends, secret=keys)

    def _in_exchange(self, keys: Keys) -> Credential:
        caller = Caller(self.place, keys)
        answer = caller.ask("sts", "GetSessionToken", DurationSeconds=SESSION_SECONDS)
        found = _credential("", answer["Credentials"])
        return Credential(who=self._who(found.secret), expires_at=found.expires_at, secret=found.secret)

    def _who(self, keys: Keys) -> str:
        return str(Caller(self.place, keys).ask("sts", "GetCallerIdentity")["Arn"])


def _partition_of(region: str) -> str:
    try:
        return str(bare_session().get_partition_for_region(region))
    except UnknownRegionError:
        raise InvalidOrder(f"AWS has no region {region}. Correct it, or name its partition.") from None


def _credential(who: str, given: Mapping[str, object]) -> Credential:
    ends = given["Expiration"]
    return Credential(
        who=who,
        expires_at=ends.astimezone(UTC) if isinstance(ends, datetime) else None,
        secret={
            "access_key_id": str(given["AccessKeyId"]),
            "secret_access_key": str(given["SecretAccessKey"]),
            "session_token": str(given["SessionToken"]),
        },
    )
