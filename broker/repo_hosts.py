"""The hosts at which a person can let this broker read their private repositories: how they call a token and the rights that
it needs, and how they are asked whose it is.

The least that is enough is what each `help` and `guide` names. A token that may do more works as well, and is said to.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from broker.repos import credentials, http
from broker.repos.asking import Asking
from providers import base
from providers.sentences import say

PRINTABLE = "[!-~]{8,}"  # and without a space
READS = base.Purpose.LAUNCH
LATER = say("The host does not say; it shows when you launch one of them.")
CAN = (
    say("Look up which commit a branch of your private repositories is."),
    say("Read the files that say what a session needs."),
    say("Fetch that one commit, once for each launch of yours."),
)
CANNOT = (
    say("It is never written to any disk of a session, and nothing that runs in a session sees it."),
    say("It opens nothing for anybody else: others are told that there is no such repository."),
    say("It is not asked for where a repository is public."),
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a host said of a token."""

    who: str
    findings: tuple[base.Permission, ...] = ()
    ends_at: dt.datetime | None = None
    refused: str = ""
    """The sentence, where it did not take it."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """One kind of host."""

    prefix: str
    named: str
    user: str
    """What git calls whoever shows a token of this host's. Empty: the person says it."""
    fields: tuple[base.Setting, ...]
    needs: str
    """The least rights, in the host's own words."""
    path: str
    """Of the page below its address where tokens are made."""
    own_page: str = ""
    """That page, where it is somewhere else than at the host."""
    revoke_path: str = ""
    who: Callable[[str, Asking], Found]
    """Asks the API at this address."""

    def page(self, url: str, public: str) -> str:
        """Where a token is made: at the host of this address."""
        return self.own_page if self.own_page and url == public else f"{url}{self.path}"


def token_field(help_text: str) -> base.Setting:
    """The secret of the kind `token`."""
    return base.Setting(name="token", title=say("Token"), help=help_text, required=True, secret=True, pattern=PRINTABLE)


# --- whose is it, and what may it -----------------------------------------------------------------------------------


def ask(url: str, asking: Asking) -> tuple[int, Mapping[str, str], Any]:
    """Status, headers and content of one answer to the person's own credential. Nothing is followed. Raises RepoError."""
    assert asking.credential is not None  # noqa: S101 -- for the type checker
    headers = {"Accept": "application/json", "Authorization": asking.credential.authorization}
    answer = asking.http.ask_exactly(url, headers, trusted=True)
    try:
        content = json.loads(answer.body)
    except ValueError:
        content = None
    return answer.status, answer.headers, content if isinstance(content, dict) else {}


def nobody(_api: str, asking: Asking) -> Found:
    """A host without an interface: only opening a repository shows whether it is right."""
    assert asking.credential is not None  # noqa: S101 -- for the type checker
    why = say("to fetch your repositories")
    return Found(who=asking.credential.user, findings=(need(say("Reading repositories"), None, why),))


def need(name: str, works: bool | None, why: str, fix: str = "") -> base.Permission:
    """One finding."""
    return base.Permission(name=name, purpose=READS, why=why, works=works, fix=fix or (LATER if works is None else ""))


def too_much(rights: list[str], fix: str) -> tuple[base.Permission, ...]:
    """The finding that a token may do more than is needed; none where it may not."""
    if not rights:
        return ()
    return (
        need(
            say("More than is needed: %(rights)s", rights=", ".join(sorted(rights))),
            None,
            say("for nothing that is done here"),
            fix,
        ),
    )


def words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def github(api: str, asking: Asking) -> Found:
    """`GET /user`; classic and OAuth tokens tell their scopes in a header, fine-grained ones do not."""
    status, headers, content = ask(f"{api}/user", asking)
    if status != 200 or not content.get("login"):
        return Found(who="", refused=f"GitHub does not take this token (status {status}). Make a new one.")
    who, ends_at = str(content["login"]), moment(headers.get("github-authentication-token-expiration", ""))
    if "x-oauth-scopes" not in headers:
        why = say("to read the repositories that you chose for this token")
        return Found(who=who, ends_at=ends_at, findings=(need("Contents: Read-only", None, why),))
    scopes = words(headers["x-oauth-scopes"])
    fix = say("Make a fine-grained token with “Contents: Read-only” for the repositories that you want to launch.")
    reads = need("repo", "repo" in scopes, say("to read private repositories"), fix)
    extra = [scope for scope in scopes if scope not in ("read:user", "user:email")]
    return Found(
        who=who, ends_at=ends_at, findings=(reads, *too_much(extra, say("It may also write. %(fix)s", fix=fix)))
    )


def gitlab(api: str, asking: Asking) -> Found:
    """`GET /user`, and `GET /personal_access_tokens/self` for scopes and end."""
    status, _, content = ask(f"{api}/user", asking)
    if status == 401:
        return Found(who="", refused="GitLab does not take this token. Make a new one.")
    who = str(content.get("username") or "")
    told, _, row = ask(f"{api}/personal_access_tokens/self", asking)
    if told != 200:
        why = say("to fetch your repositories")
        return Found(who=who or "somebody (the token does not say who)", findings=(need("read_repository", None, why),))
    scopes = [str(scope) for scope in row.get("scopes") or ()]
    enough = {"read_repository", "write_repository", "api"}
    fix = say("Make a token with the scopes read_repository and read_user only.")
    reads = need("read_repository", bool(enough & set(scopes)), say("to fetch private projects"), fix)
    extra = [scope for scope in scopes if scope not in ("read_repository", "read_user")]
    found = (reads, *too_much(extra, fix))
    return Found(
        who=who or str(row.get("name") or ""), findings=found, ends_at=moment(str(row.get("expires_at") or ""))
    )


def bitbucket(api: str, asking: Asking) -> Found:
    """`GET /user`. A token of one repository's own is nobody's, and is told so with 403."""
    status, headers, content = ask(f"{api}/user", asking)
    if status == 401:
        return Found(who="", refused="Bitbucket does not take this token. Make a new one.")
    who = str(content.get("display_name") or content.get("username") or "an access token")
    scopes = words(headers.get("x-oauth-scopes", ""))
    reading = {"repository", "repository:write", "read:repository:bitbucket", "write:repository:bitbucket"}
    works = bool(reading & set(scopes)) if scopes else None
    fix = say("Make a token with the scopes read:repository:bitbucket and read:user:bitbucket only.")
    fine = {"repository", "account", "read:repository:bitbucket", "read:user:bitbucket"}
    extra = [scope for scope in scopes if scope not in fine]
    reads = need("read:repository:bitbucket", works, say("to fetch private repositories"), fix if scopes else "")
    return Found(who=who, findings=(reads, *too_much(extra, fix)))


def moment(text: str) -> dt.datetime | None:
    """`2026-12-24`, `2026-12-24 09:00:00 UTC` or `… -0800`; None for what is not said, or otherwise."""
    whole = f"{text} 00:00:00 +0000" if len(text) == len("2026-12-24") else text.replace("UTC", "+0000")
    with contextlib.suppress(ValueError):
        return dt.datetime.strptime(whole, "%Y-%m-%d %H:%M:%S %z")
    return None


# --- the hosts ------------------------------------------------------------------------------------------------------

FINE = {
    "name": "Anybinder",
    "description": "Reads the repositories that I launch",
    "expires_in": "90",
    "contents": "read",
}
HOSTS: Mapping[str, Host] = {
    host.prefix: host
    for host in (
        Host(
            prefix="gh",
            named="GitHub",
            user="x-access-token",
            needs=say("a fine-grained token with “Contents: Read-only” for the repositories that you want to launch"),
            fields=(
                token_field(
                    "A fine-grained personal access token with the permission “Contents: Read-only”, for those repositories "
                    "only that you want to launch. A classic token needs the scope repo, which may also write."
                ),
            ),
            path=f"/settings/personal-access-tokens/new?{urlencode(FINE)}",
            revoke_path="/settings/personal-access-tokens",
            who=github,
        ),
        Host(
            prefix="gl",
            named="GitLab",
            user="oauth2",
            needs=say("a personal access token with the scopes read_repository and read_user"),
            fields=(
                token_field(
                    "A personal, group or project access token with the scopes read_repository and read_user, and no others. "
                    "A project's token with the role Reporter opens that project alone."
                ),
            ),
            path="/-/user_settings/personal_access_tokens?name=Anybinder&scopes=read_repository,read_user",
            revoke_path="/-/user_settings/personal_access_tokens",
            who=gitlab,
        ),
        Host(
            prefix="bb",
            named="Bitbucket",
            user="x-token-auth",
            needs=say("an API token with the scopes read:repository:bitbucket and read:user:bitbucket"),
            fields=(
                base.Setting(
                    name="email",
                    title=say("E-mail address"),
                    help=say(
                        "That of your Atlassian account, for an API token of yours. Empty for an access token of a repository, "
                        "a project or a workspace."
                    ),
                    pattern=r"[!-~]+@[!-~]+",
                    example="ada@uni.example",
                ),
                token_field(
                    "An API token with the scopes read:repository:bitbucket and read:user:bitbucket, or an access token of "
                    "one repository with the permission “Repositories: Read”. App passwords are no longer taken there."
                ),
            ),
            path="",
            own_page="https://id.atlassian.com/manage-profile/security/api-tokens",
            who=bitbucket,
        ),
        Host(
            prefix="git",
            named="Git",
            user="",
            needs=say("a token or password for git that can read and not write"),
            fields=(
                base.Setting(
                    name="user",
                    title=say("User"),
                    help=say("What git is told as your user name there. Where only the token counts, any word will do."),
                    required=True,
                    pattern=r"[!-~]+",
                    example="ada",
                ),
                token_field(
                    "A token or password that git takes there. Choose one that can only read, and only what you launch."
                ),
            ),
            path="",
            who=nobody,
        ),
    )
}  # fmt: skip
ATLASSIAN_USER = "x-bitbucket-api-token-auth"
"""What Bitbucket's git calls whoever shows an API token of their Atlassian account."""


def credential(
    host: Host, *, origin: str, connection_id: str, settings: Mapping[str, str], secret: str
) -> credentials.Credential:
    """How this host takes this secret, from git and from its API."""
    email = settings.get("email", "") if host.prefix == "bb" else ""
    return credentials.Credential(
        prefix=host.prefix,
        connection_id=connection_id,
        origin=origin,
        user=ATLASSIAN_USER if email else host.user or settings.get("user", ""),
        secret=secret,
        api_user=email,
    )


def guide(host: Host, kind: base.Kind, *, url: str, public: str, signs_in: str = "") -> base.Guide:
    """What a person is told and does. `url`: the host's pages; `public`: those of the public one of its kind."""
    site = http.host_of(url)
    if kind.tier is base.Tier.DELEGATED:
        return base.Guide(
            can=CAN,
            cannot=CANNOT,
            steps=(
                say(
                    "Nothing has to be copied: %(provider)s keeps the token that %(named)s gave when you "
                    "linked your account there, and hands it over for each launch.",
                    provider=signs_in or say("your identity provider"),
                    named=host.named,
                ),
            ),
            revoke=(
                say(
                    "Unlink %(named)s at your identity provider, and withdraw its application at %(site)s.",
                    named=host.named,
                    site=site,
                ),
            ),
            narrows=say(
                "It can do what the identity provider asked for when you linked the account, for all repositories."
            ),
        )
    page = host.page(url, public)
    made = (
        say("Open %(site)s by the button below and make %(needs)s.", site=site, needs=host.needs)
        if page
        else say("Open %(site)s and make %(needs)s.", site=site, needs=host.needs)
    )
    ends = host.own_page if page == host.own_page else f"{url}{host.revoke_path}"
    return base.Guide(
        can=CAN,
        cannot=CANNOT,
        steps=(made, say("Copy it into the field below. It is sealed at once, and never shown again.")),
        link=page if host.path or host.own_page else "",
        link_title=say("Make a token at %(site)s", site=site) if page else "",
        revoke=(say("Open %(page)s and revoke the token.", page=ends or site),),
        narrows=say("What it can do is what you choose there; enough is %(needs)s.", needs=host.needs),
    )
