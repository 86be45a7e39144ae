"""What a person is told who connects an OpenStack account."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from providers import base
from providers.openstack import needs
from providers.openstack.clouds import Cloud
from providers.sentences import say

KEEP_DAYS = 90
"""How long a credential of the script's lives: a season of work, and no standing key after it."""
PAGE = "Identity → Application Credentials"
CANNOT = (
    say("Touch any other service: object storage, load balancers, secrets, other people's rights."),
    say("Make, change or read further credentials, or enter another of your projects."),
)
NO_NETWORKS = say(
    "Log in to your machines, make networks, or open a firewall: it cannot make a rule that lets anything in."
)
NO_ADDRESSES = say(
    "Log in to your machines, make networks or addresses, or open a firewall: it cannot make a rule that lets anything in."
)

SCRIPT = """\
# Makes two application credentials for {broker}, which live {days} days and may do what is listed here, no more:
# “{name}” to start machines, “{name}-reap” to look at them and delete them. Run it again to renew them: the ones before
# end at that moment, so paste at once what it prints.
ends=$(python3 -c 'import datetime as d; print(f"{{d.datetime.now(d.timezone.utc) + d.timedelta({days}):%Y-%m-%dT%H:%M:%S}}")')
make() {{
  if openstack application credential show "$1" >/dev/null 2>&1; then
    openstack application credential delete "$1"
  fi
  openstack application credential create "$1" --role member --restricted --expiration "$ends" --description "$2" \\
    --access-rules "$3" -f json |
    python3 -c 'import json, sys; m = {{k.lower(): v for k, v in json.load(sys.stdin).items()}}; print(m["id"], m["secret"])'
}}
set -- $(make {name} 'For {broker}: start machines, look at them and delete them' '{rules}') \\
  $(make {name}-reap 'For {broker}: look at machines and delete them' '{reap_rules}')
echo "Id: $1"
echo "Secret: $2 $4"
echo "Second id: $3"
"""


def application_credential(cloud: Cloud, trust: base.Trust) -> base.Guide:
    """By script, or by hand on the dashboard's page."""
    rules, reap_rules = (_rules(cloud, purpose) for purpose in (None, base.Purpose.REAP))
    name = credential_name(trust)
    broker = trust.name or "this broker"
    return base.Guide(
        can=(
            say("See the machines, sizes, images, networks and quota of this one project."),
            say("Start machines there, each behind a firewall of its own that lets nothing in."),
            say("Delete machines there, their firewalls, and the empty image records that orders are claimed by."),
        ),
        cannot=(*CANNOT, NO_NETWORKS if cloud.floating_network else NO_ADDRESSES),
        steps=(
            say(
                "Open your project on the cloud's dashboard, %(page)s, and choose “Create Application Credential”.",
                page=PAGE,
            ),
            say("Name it “%(name)s”, and leave its secret empty: the cloud makes a good one.", name=name),
            say(
                "Set an expiration date, %(days)s days from now at most, and choose the role “member” only.",
                days=KEEP_DAYS,
            ),
            say(
                "Paste the access rules (the file access-rules.json here) into “Access Rules”. Leave "
                "“Unrestricted” off."
            ),
            say("Copy the id and the secret that it shows now, and never again, into the form here."),
            say(
                "Better make a second one for cleaning up, “%(name)s-reap”, with the rules of "
                "reap-access-rules.json: type its id into “Second id”, and its secret behind the first, "
                "after a space.",
                name=name,
            ),
            say(
                "Or run the script instead, where the command `openstack` is signed in to your project: "
                "it makes both, and prints what to copy."
            ),
            *cloud.notes,
        ),
        link=cloud.credentials_page,
        link_title=say("Open the cloud's application credentials") if cloud.credentials_page else "",
        script=SCRIPT.format(name=name, broker=broker, days=KEEP_DAYS, rules=rules, reap_rules=reap_rules),
        script_title=say("Where the command openstack is signed in to your project"),
        download={"access-rules.json": rules + "\n", "reap-access-rules.json": reap_rules + "\n"},
        revoke=(
            say(
                "Open %(page)s on the cloud's dashboard%(at)s, and delete “%(name)s” and “%(name)s-reap”.",
                page=PAGE,
                at=_at(cloud),
                name=name,
            ),
            say(
                "Or, with the command: `openstack application credential delete %(name)s %(name)s-reap`.",
                name=name,
            ),
            say(
                "They end at once there, and with them every token that came of them. This broker "
                "cannot delete them: it may not."
            ),
        ),
        narrows=(
            say(
                "The credential is limited to one project, one role, these requests and a date. It "
                "cannot be limited to the machines that were started here: it could delete another of "
                "the project's machines, images or firewalls. A project of its own is the better fence. "
                "With one credential cleaning up could start machines too; with a second one for that "
                "it cannot."
            )
        ),
    )


def oidc(identity_provider: str, trust: base.Trust, settings: Mapping[str, str]) -> base.Guide:
    """What the people who run the cloud have to do, with the words to send them."""
    project = settings.get("project") or "PROJECT"
    return base.Guide(
        can=(
            say("Enter this one project as the user that the cloud's operators map you to."),
            say("Start machines there, only while you are signed in here."),
            say("List and delete machines there, at any time, under a name of its own."),
        ),
        cannot=(
            say("Do anything that the roles of these two users do not allow."),
            say("Keep a key: each sign-in takes a token of minutes, and nothing secret is stored."),
            say("Enter another project."),
        ),
        steps=(
            say(
                "Ask the people who run the cloud to give your two subjects a role in the project: send "
                "them the mapping here."
            ),
            say("Type the project's id into the form here."),
        ),
        script=as_mapping(trust, project),
        script_title=say(
            "For the operators: rules for the mapping of the identity provider “%(identity_provider)s”",
            identity_provider=identity_provider,
        ),
        revoke=(
            say(
                "Ask the people who run the cloud to take these rules out of the mapping. Tokens that "
                "were given out live on for an hour or so."
            ),
        ),
        narrows=(
            say(
                "Keystone's mapping sees who it is and nothing else: not the launch, not the "
                "repository. What each of the two may do is in their roles, and in most clouds no role "
                "may delete only what it has started. So let the second have a role of its own where "
                "the cloud has one that deletes and does not create."
            )
        ),
    )


def as_mapping(trust: base.Trust, project: str) -> str:
    """Two rules for Keystone's mapping: each subject becomes a user of that name, in the group that has the role."""
    groups = ((trust.launch_subject, "LAUNCH_GROUP"), (trust.reap_subject, "REAP_GROUP"))
    told = json.dumps([rule(subject, group) for subject, group in groups], indent=2)
    return f"# LAUNCH_GROUP and REAP_GROUP: ids of groups with a role in the project {project}\n{told}\n"


def rule(subject: str, group: str) -> dict[str, object]:
    """Whoever comes with this subject is a user of the same name, in this group."""
    who = {"type": "HTTP_OIDC_SUB"}
    return {
        "local": [{"user": {"name": "{0}"}, "group": {"id": group}}],
        "remote": [who, {**who, "any_one_of": [subject]}],
    }


def credential_name(trust: base.Trust) -> str:
    """What the script calls it: one for each broker, so that two brokers do not delete each other's."""
    return f"anybinder-{trust.broker}"


def _rules(cloud: Cloud, purpose: base.Purpose | None) -> str:
    return needs.as_json(needs.rules(_prefixes(cloud), purpose, addresses=bool(cloud.floating_network)))


def _prefixes(cloud: Cloud) -> dict[str, str]:
    return {**needs.USUAL, "identity": urlsplit(cloud.auth_url).path}


def _at(cloud: Cloud) -> str:
    return f" ({cloud.credentials_page})" if cloud.credentials_page else ""
