"""What a person does in their AWS account, kind by kind. The template beside this file is all that is made there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any
from urllib.parse import quote, urlencode

import yaml

from providers.aws.clients import Place
from providers.base import Guide, Purpose, Trust
from providers.sentences import say

AUDIENCE = "sts.amazonaws.com"
ROLES = {Purpose.LAUNCH: "AnybinderLaunch", Purpose.REAP: "AnybinderReap"}
CONSOLES = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}
TEMPLATE = "anybinder-aws.yaml"
CAN = (
    say("start machines in one region, each marked as this broker's, while you are signed in here"),
    say("see which machines, sizes and networks there are in that region"),
    say("end the machines that carry its mark, also while you sleep"),
)
CANNOT = (
    say("touch a machine or disk that it did not start itself"),
    say("read your files and databases, or see your bills: it gets no other service of AWS"),
    say("make users, keys or roles, or give its machines any rights in your account"),
)
NARROWS = say(
    "AWS compares who the token is for and whom it names, exactly. For a launch it limits "
    "the credential to what carries that launch's tag, and writes launch, repository and "
    "backend into its log (CloudTrail). It cannot limit how large a machine is or what it "
    "costs: set a budget in your account for that. Credentials last 15 minutes. Unless you "
    "say no to “Schedules”, AWS itself ends each machine at its hour, by a third role that "
    "can do nothing else."
)


def role_name(purpose: Purpose, subject: str) -> str:
    """Each person has roles of their own: two may connect one account. At most 64 characters."""
    return f"{ROLES[purpose]}-{subject}"


def web_identity(place: Place, trust: Trust, settings: Mapping[str, str], template_url: str) -> Guide:  # noqa: ARG001
    """One link where the operator keeps the template in S3, else one script to paste; both make the same stack."""
    parameters = stack_parameters(place, trust)
    stack = stack_name(trust)
    link = _quick_create(place, template_url, stack, parameters) if template_url and place.partition in CONSOLES else ""
    port = (
        say(
            "AWS takes no issuer whose address has a port. Whoever runs this broker must give it an "
            "address without one."
        ),
    )
    by_link = say("Open the link, read what the stack makes, tick the box at its end and press “Create stack”.")
    by_script = say("Open AWS CloudShell in your account, paste the script and press Enter; it may be run again.")
    return Guide(
        can=CAN,
        cannot=CANNOT,
        steps=(
            *(port if ":" in _host(trust) else ()),
            by_link if link else by_script,
            say(
                "Enter the 12 digits of your account below; the stack shows them under “Outputs”, the "
                "script at its end."
            ),
            say("Press “Check”."),
        ),
        link=link,
        link_title=say("Open AWS with everything filled in") if link else "",
        script=_script(place, stack, parameters),
        script_title=say("For AWS CloudShell (the terminal sign at the top of the AWS console)"),
        download={TEMPLATE: filled(parameters)},
        revoke=(
            say(
                "Delete the stack %(stack)s: in CloudFormation, or by `aws cloudformation delete-stack "
                "--region %(region)s --stack-name %(stack)s`. From then on this broker cannot start, "
                "see or end anything in your account.",
                stack=stack,
                region=place.region,
            ),
            say(
                "The identity provider %(issuer)s stays in IAM, since others may use it. It opens "
                "nothing by itself; where nobody else uses this broker with your account, delete it "
                "there, too.",
                issuer=_host(trust),
            ),
        ),
        narrows=NARROWS,
    )


def access_key(place: Place, trust: Trust, settings: Mapping[str, str], template_url: str) -> Guide:  # noqa: ARG001
    """For accounts that may trust no identity provider."""
    return Guide(
        can=CAN,
        cannot=CANNOT,
        steps=(
            say("In IAM make a user for this alone, without access to the console, and give it the policy below."),
            say("Make an access key for this user and enter both halves below. This broker seals the secret half."),
            say("Press “Check”."),
        ),
        download={"anybinder-policy.json": _policy(place, trust)},
        revoke=(
            say(
                "Delete the access key, or the user, in IAM. Disconnecting here alone does not make the key worthless."
            ),
        ),
        narrows=say(
            "AWS makes credentials of 15 minutes from the key, and they are used for everything, so "
            "that the key itself signs nothing but that one call and these cannot change users or "
            "roles. They may do all that the user may: neither one launch nor ending alone can be "
            "told apart. Connect without a key where you can."
        ),
    )


def profile(place: Place, trust: Trust, settings: Mapping[str, str], template_url: str) -> Guide:  # noqa: ARG001
    """For the one person at this computer."""
    return Guide(
        can=(
            say(
                "do in %(region)s whatever the profile may; it will start, see and end its own machines only",
                region=place.region,
            ),
        ),
        cannot=(
            say("use the profile for anybody but you, the person at this computer"),
            say("keep what the profile signs in with"),
        ),
        steps=(
            say("Enter the name of a profile with which `aws sts get-caller-identity` answers on this computer."),
            say("Press “Check”."),
        ),
        revoke=(say("Sign the profile out (`aws sso logout`), or remove it from ~/.aws."),),
        narrows=say("Nothing narrows it: it is what you are signed in with anyway."),
    )


def stack_name(trust: Trust) -> str:
    """One stack a person and backend, so that connecting again updates it."""
    return f"anybinder-{_subject(trust)}"


def stack_parameters(place: Place, trust: Trust) -> dict[str, str]:
    """What the template is told."""
    return {
        "Issuer": _host(trust),
        "LaunchSubject": trust.launch_subject,
        "ReapSubject": trust.reap_subject,
        "RoleSuffix": _subject(trust),
        "Broker": trust.broker,
        "Region": place.region,
    }


def template() -> str:
    """The CloudFormation template as it is: what an operator puts into S3."""
    return resources.files("providers.aws").joinpath("template.yaml").read_text()


def filled(parameters: Mapping[str, str]) -> str:
    """The template with these values as its defaults."""
    text = template()
    for name, value in parameters.items():
        head = f"  {name}:\n    Type: String\n"
        text = text.replace(head, f"{head}    Default: {json.dumps(value)}\n", 1)
    return text


def _host(trust: Trust) -> str:
    return trust.issuer.partition("://")[2]


def _subject(trust: Trust) -> str:
    return trust.launch_subject.partition(":")[2]


def _quick_create(place: Place, template_url: str, stack: str, parameters: Mapping[str, str]) -> str:
    asked = {"templateURL": template_url, "stackName": stack, **{f"param_{k}": v for k, v in parameters.items()}}
    where = f"https://{place.region}.{CONSOLES[place.partition]}/cloudformation/home?region={place.region}"
    return f"{where}#/stacks/create/review?{urlencode(asked, quote_via=quote)}"


def _script(place: Place, stack: str, parameters: Mapping[str, str]) -> str:
    """In a shell of its own, so that an error closes nobody's terminal.

    AWS takes an identity provider once an account, so it looks whether another stack made this one already.
    """
    overrides = " ".join(f"{name}={value}" for name, value in parameters.items())  # else an update keeps the old ones
    return f"""\
(
set -e
cd "$(mktemp -d)"
cat > {TEMPLATE} <<'END-OF-TEMPLATE'
{filled(parameters).rstrip()}
END-OF-TEMPLATE
already=no
if aws iam list-open-id-connect-providers --query 'OpenIDConnectProviderList[].Arn' --output text | tr '\\t' '\\n' |
       sed 's/.*:oidc-provider.//' | grep -q -x -F '{parameters["Issuer"]}' &&
   ! aws cloudformation describe-stack-resource --region {place.region} --stack-name {stack} \\
       --logical-resource-id Trust > /dev/null 2>&1
then already=yes; fi
aws cloudformation deploy --region {place.region} --stack-name {stack} --template-file {TEMPLATE} \\
    --capabilities CAPABILITY_NAMED_IAM --no-fail-on-empty-changeset --parameter-overrides {overrides} \\
    TrustsIssuerAlready=$already
echo "Done. Your account number: $(aws sts get-caller-identity --query Account --output text)"
)
"""


def _policy(place: Place, trust: Trust) -> str:
    """What the launch role of the template may do, for a user."""
    launch = yaml.safe_load(template())["Resources"]["Launch"]["Properties"]["Policies"][0]["PolicyDocument"]
    values = {**stack_parameters(place, trust), "AWS::Partition": place.partition, "AWS::AccountId": "*"}
    return json.dumps(_resolved(launch, values), indent=2) + "\n"


def _resolved(node: Any, values: Mapping[str, str]) -> Any:
    """CloudFormation's `Ref` and `Fn::Sub` put in place."""
    if isinstance(node, list):
        return [_resolved(each, values) for each in node]
    if not isinstance(node, dict):
        return node
    if "Ref" in node:
        return values[node["Ref"]]
    if "Fn::Sub" in node:
        return re.sub(r"\$\{([^}]+)\}", lambda found: values[found[1]], node["Fn::Sub"])
    return {name: _resolved(each, values) for name, each in node.items()}
