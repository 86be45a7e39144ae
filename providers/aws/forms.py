"""What an operator configures and what a person tells: the forms are made from these."""

from __future__ import annotations

from providers.base import Kind, Setting, Tier
from providers.sentences import say

ACCOUNT = Setting(
    name="account",
    title=say("Account number"),
    help=say("The 12 digits of your AWS account: in the console, the menu at the top right shows them."),
    required=True,
    pattern=r"[0-9]{12}",
    example="123456789012",
)
KEY_ID = Setting(
    name="access_key_id",
    title=say("Access key id"),
    help=say("The public half of the access key; it begins with AKIA."),
    required=True,
    pattern=r"AKIA[A-Z0-9]{12,124}",
    example="AKIAIOSFODNN7EXAMPLE",
)
KEY_SECRET = Setting(
    name="secret_access_key",
    title=say("Secret access key"),
    help=say("The secret half. It is sealed, and used only to ask AWS for credentials of minutes."),
    required=True,
    secret=True,
    pattern=r"[A-Za-z0-9/+=]{16,128}",
)
PROFILE = Setting(
    name="profile",
    title=say("Profile"),
    help=say("The name of a profile in the AWS files of this computer, as `aws configure list-profiles` shows it."),
    required=True,
    pattern=r"[\w.@+-][\w.@+ -]{0,63}",
    example="default",
)
KINDS = (
    Kind(name="web_identity", title=say("Your account trusts this broker"), tier=Tier.KEYLESS, fields=(ACCOUNT,)),
    Kind(name="access_key", title=say("An access key"), tier=Tier.KEPT, fields=(KEY_ID, KEY_SECRET)),
    Kind(name="profile", title=say("A profile of this computer"), tier=Tier.AMBIENT, fields=(PROFILE,)),
)
SETTINGS = (
    Setting(name="region", help="The region to run in, like eu-central-1.", required=True),
    Setting(
        name="architectures",
        help="Kinds of processors to offer, with commas.",
        default="x86_64,arm64",
        example="x86_64",
    ),
    Setting(name="spot", help="Whether spot machines are offered too.", default="yes", choices=("yes", "no")),
    Setting(name="system", help="What machines start from.", default="debian", choices=("debian", "ubuntu")),
    Setting(
        name="disk_gb", help="Size of a machine's disk in GB, where a launch asks for no larger one.", default="30"
    ),
    Setting(
        name="subnets",
        help="Ids of the subnets to start in, with commas, all of one network and with a way to the internet. "
        "Empty: the default network of each account.",
        example="subnet-0123456789abcdef0",
    ),
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
