"""A cloud on the desk that asks everybody for an account of their own, in four ways."""

from __future__ import annotations

from collections.abc import Mapping

from providers import base
from providers import errors as clouds
from tests.doubles.desk_cloud import DeskCloud

ACCOUNT = base.Setting(
    name="account",
    title="Account number",
    help="Twelve digits.",
    required=True,
    pattern=r"[0-9]{12}",
    example="123456789012",
)
ZONE = base.Setting(name="zone", title="Zone", help="Where.", default="east", choices=("east", "west"))
KEY = base.Setting(
    name="key", title="Secret key", help="The secret half.", required=True, secret=True, pattern=r"\S{8,}"
)


class AccountsCloud(DeskCloud):
    """It believes what `works` says; `missing` holds names of permissions that the account lacks."""

    title = "Accounts Cloud"

    def __init__(self, configuration: Mapping[str, str] | None = None) -> None:
        super().__init__(configuration)
        self.kinds = (
            base.Kind(
                name="keyless", title="Your account trusts this broker", tier=base.Tier.KEYLESS, fields=(ACCOUNT,)
            ),
            base.Kind(name="delegated", title="A credential", tier=base.Tier.DELEGATED, fields=(ZONE, KEY)),
            base.Kind(name="kept", title="A key", tier=base.Tier.KEPT, fields=(ACCOUNT, KEY)),
            base.Kind(name="ambient", title="This computer's profile", tier=base.Tier.AMBIENT),
        )
        self.missing: set[str] = set()
        self.refused: dict[base.Purpose, str] = {}
        """By purpose: why nobody is let in."""

    def sign_in(self, connection: base.Connection, identity_token: str | None) -> base.Credential:
        credential = super().sign_in(connection, identity_token)
        if connection.purpose in self.refused:
            raise clouds.BadCredential(self.refused[connection.purpose])
        return credential

    def check(self, connection: base.Connection, credential: base.Credential) -> list[base.Permission]:
        self._called("check")
        wanted = {base.Purpose.LAUNCH: "desk:Buy", base.Purpose.REAP: "desk:End"}
        name = wanted[connection.purpose]
        lists = base.Permission(
            name=name,
            purpose=connection.purpose,
            why="to do what it says",
            works=name not in self.missing,
            fix=f"Allow `{name}` in the role." if name in self.missing else "",
        )
        untried = base.Permission(name="desk:Pay", purpose=connection.purpose, why="to pay", works=None)
        return [lists, untried]

    def guide(self, kind: str, trust: base.Trust, settings: Mapping[str, str]) -> base.Guide:
        told = settings.get("account", "")
        return base.Guide(
            can=("start machines", "see them", "end them"),
            cannot=("read your files", "see your bills"),
            steps=("Open the link and press “Create”.", "Enter the number below.", "Press “Check”."),
            link=f"https://cloud.example/create?sub={trust.launch_subject}&account={told}" if kind == "keyless" else "",
            link_title="Open the cloud" if kind == "keyless" else "",
            script=f"cloud trust --sub {trust.launch_subject}\n" if kind in ("keyless", "delegated") else "",
            script_title="For the cloud's shell",
            download={"trust.yaml": "Trust: <&>\n"},
            revoke=(f"Delete the trust of {trust.launch_subject}.",),
            narrows="It narrows by tag.",
        )
