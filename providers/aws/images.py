"""What machines start from: the newest stock image, by the parameter under which its makers publish it."""

from __future__ import annotations

from dataclasses import dataclass

from providers.aws.clients import Caller
from providers.errors import InvalidOrder


@dataclass(frozen=True, kw_only=True)
class System:
    """An operating system as its makers publish it."""

    title: str
    parameter: str
    releases: tuple[str, ...]
    """Newest first: the first that is published is taken."""
    device: str
    """What its images call their root disk; under another name a second disk would be made."""


# Parameters: https://wiki.debian.org/Cloud/AmazonEC2Image and https://documentation.ubuntu.com/aws/en/latest/aws-how-to/instances/find-ubuntu-images/
SYSTEMS = {
    "debian": System(
        title="Debian",
        parameter="/aws/service/debian/release/{release}/latest/{architecture}",
        releases=("13", "12"),
        device="/dev/xvda",
    ),
    "ubuntu": System(
        title="Ubuntu",
        parameter="/aws/service/canonical/ubuntu/server/{release}/stable/current/{architecture}/hvm/ebs-gp3/ami-id",
        releases=("26.04", "24.04"),
        device="/dev/sda1",
    ),
}
CALLED = {"x86_64": "amd64", "arm64": "arm64"}


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image of this region."""

    id: str
    device: str


def newest(caller: Caller, system: str, architecture: str) -> Image:
    """Raises InvalidOrder where none is published there (any more)."""
    chosen = SYSTEMS[system]
    names = parameters(system, architecture)
    answer = caller.ask("ssm", "GetParameters", Names=names)
    by_name = {each["Name"]: each["Value"] for each in answer["Parameters"]}
    image = next((by_name[name] for name in names if name in by_name), "")
    if not image:
        raise InvalidOrder(
            f"AWS lists no stock image of {chosen.title} for {architecture} machines in this region any more. "
            "Choose another backend; whoever runs this broker can name another system."
        )
    return Image(id=image, device=chosen.device)


def parameters(system: str, architecture: str) -> list[str]:
    """Under which names it is looked for, newest release first."""
    chosen = SYSTEMS[system]
    return [chosen.parameter.format(release=each, architecture=CALLED[architecture]) for each in chosen.releases]
