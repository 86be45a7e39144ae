"""The network of the containers, and the fence around it.

A container reaches the internet and nothing else: not this computer (its loopback, its own addresses, the broker), not
another container, not a private network, not a cloud's metadata address. The engine gives us a bridge without traffic between
its containers; the rest is rules of the packet filter, which only root can make:

    ANYBINDER        what is forwarded from the containers: private, local and reserved addresses are refused
    ANYBINDER-HOST   what comes from the containers to this computer: refused, but for answers
    ANYBINDER-OUT    what goes from this computer to the containers: from root and the broker's user only

Name servers of this computer are open on port 53, and `network_allowed` names what else. The engine's default bridge gets the
first two chains too, because builds run there, and a build is a stranger's code. Everything is made anew before each
container, in one step, so nothing is lost for longer when somebody clears the filter. Rules and network stay when the last
session ends: they cost nothing; `remove` takes them away.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.environments import programs
from broker.environments.programs import Failed

if TYPE_CHECKING:
    import docker

BRIDGES = {"fenced": "anybinder0", "open": "anybinder1"}
NETWORKS = {"fenced": "anybinder", "open": "anybinder-open"}
BUILDS = "docker0"  # the engine's default bridge: builds have no other
REFUSED = (
    "0.0.0.0/8",  # "this network": some systems take it for their loopback
    "10.0.0.0/8",
    "100.64.0.0/10",  # carriers' and some clouds' inner networks (RFC 6598); Alibaba's metadata is in it
    "127.0.0.0/8",
    "169.254.0.0/16",  # link-local: most clouds' metadata
    "172.16.0.0/12",
    "192.168.0.0/16",
    "168.63.129.16/32",  # Azure's inner services, a public address
    "224.0.0.0/3",  # multicast and reserved
)
RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
SECONDS = 20
CANNOT = (
    "A container cannot be fenced off from this computer's network here, because {why}. Run the broker as root on a Linux "
    "with iptables; or set the backend's network to none; or to open, where everybody who may launch here may also use "
    "this computer's network."
)


def ensure(client: docker.APIClient, engine: dict[str, Any]) -> str:
    """The network that a container shall be put in; it is there, with its fence. May be repeated, by several at once.

    Raises Failed where a fence is wanted and cannot be made.
    """
    kind = engine["network"]
    if kind == "none":
        return "none"
    make_network(client, kind)
    if kind == "fenced":
        make_fence(engine.get("network_allowed") or [])
    return NETWORKS[kind]


def before_build(engine: dict[str, Any]) -> None:
    """Builds reach the internet and nothing else, wherever a fence can be made. Raises Failed where it is wanted and cannot.

    A build needs a network even where a session gets none.
    """
    if engine["network"] == "fenced" or (engine["network"] == "none" and not why_not()):
        make_fence(engine.get("network_allowed") or [])


def make_network(client: docker.APIClient, kind: str) -> None:
    """A bridge of ours, whose containers do not see each other."""
    import docker

    if client.networks(names=[f"^{NETWORKS[kind]}$"]):
        return
    options = {
        "com.docker.network.bridge.name": BRIDGES[kind],
        "com.docker.network.bridge.enable_icc": "false",
    }
    try:
        client.create_network(NETWORKS[kind], driver="bridge", options=options, check_duplicate=True, enable_ipv6=False)
    except docker.errors.APIError:
        if not client.networks(names=[f"^{NETWORKS[kind]}$"]):  # else another was faster
            raise


def make_fence(allowed: list[str]) -> None:
    """All rules anew, and what leads to them. Raises Failed where that is not permitted."""
    if why := why_not():
        raise Failed(CANNOT.format(why=why))
    bridge = BRIDGES["fenced"]
    restore("iptables-restore", chains(allowed))
    forward = "DOCKER-USER" if has_chain("DOCKER-USER") else "FORWARD"  # Docker keeps its own first in FORWARD
    for each in (bridge, BUILDS):
        lead("iptables", forward, "-i", each, "-j", "ANYBINDER")
        lead("iptables", "INPUT", "-i", each, "-j", "ANYBINDER-HOST")
    lead("iptables", "OUTPUT", "-o", bridge, "-j", "ANYBINDER-OUT")
    if shutil.which("ip6tables", path=path()):
        for chain, direction in (("FORWARD", "-i"), ("INPUT", "-i"), ("OUTPUT", "-o")):
            lead("ip6tables", chain, direction, bridge, "-j", "DROP")  # our network has no IPv6


def remove(client: docker.APIClient) -> None:
    """Network and fence are gone. Raises Failed while a container is in the network."""
    for kind in NETWORKS:
        if client.networks(names=[f"^{NETWORKS[kind]}$"]):
            client.remove_network(NETWORKS[kind])
    remove_fence()


def remove_fence() -> None:
    """Nothing of ours is left in the packet filter. What is gone already is no fault."""
    if why_not():
        return
    for program in ("iptables", "ip6tables"):
        if not shutil.which(program, path=path()):
            continue
        for line in asked([program, "-S"]).splitlines():
            words = line.split()
            if words[:1] == ["-A"] and leads_to_ours(words, program):
                asked([program, "--wait", "-D", *words[1:]])
    for chain in ("ANYBINDER", "ANYBINDER-HOST", "ANYBINDER-OUT"):
        for verb in ("-F", "-X"):
            with contextlib.suppress(Failed):
                asked(["iptables", "--wait", verb, chain])


def leads_to_ours(words: list[str], program: str) -> bool:
    """Whether we have put this rule there; the engine's own rules for the bridge go with the network."""
    if program == "ip6tables":
        return words[2:] in (["-i", BRIDGES["fenced"], "-j", "DROP"], ["-o", BRIDGES["fenced"], "-j", "DROP"])
    return words[-1].startswith("ANYBINDER")


def why_not() -> str:
    """Why no rules can be made here; empty where they can."""
    if os.geteuid() != 0:
        return "the broker does not run as root"
    return "" if shutil.which("iptables", path=path()) else "there is no iptables"


def chains(allowed: list[str]) -> str:
    """Our three chains, as iptables-restore reads them: those that are named are replaced whole."""
    answers = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
    refuse = "-j REJECT --reject-with icmp-admin-prohibited"  # a refusal is noticed at once, silence after minutes
    names = [f"-d {each} -p {kind} --dport 53 -j RETURN" for each in name_servers() for kind in ("udp", "tcp")]
    users = [f"-m owner --uid-owner {uid} -j RETURN" for uid in sorted({0, os.getuid()})]
    rules = {
        "ANYBINDER": [
            answers,
            *names,
            *(f"-d {each} -j RETURN" for each in allowed),
            *(f"-d {each} {refuse}" for each in REFUSED),
        ],
        "ANYBINDER-HOST": [answers, *names, *(f"-d {each} -j RETURN" for each in allowed), refuse],
        "ANYBINDER-OUT": [answers, *users, refuse],
    }
    heads = [f":{chain} - [0:0]" for chain in rules]
    lines = [f"-A {chain} {rule}" for chain, several in rules.items() for rule in several]
    return "\n".join(["*filter", *heads, *lines, "COMMIT", ""])


def name_servers() -> list[str]:
    """Those of this computer that a container could ask; a loopback one is asked by the engine itself."""
    found = []
    for file in RESOLVERS:
        with contextlib.suppress(OSError):
            lines = (line.split() for line in Path(file).read_text().splitlines())
            found += [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
    return [each for each in dict.fromkeys(found) if is_asked(each)]


def is_asked(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.version == 4 and not address.is_loopback


def lead(program: str, chain: str, *rule: str) -> None:
    """This rule is in the chain; where it was not, it is now the first."""
    try:
        asked([program, "--wait", "-C", chain, *rule])
    except Failed:
        asked([program, "--wait", "-I", chain, "1", *rule])


def has_chain(chain: str) -> bool:
    try:
        asked(["iptables", "--wait", "-S", chain, "1"])
    except Failed:
        return False
    return True


def restore(program: str, text: str) -> None:
    asked([program, "--wait", "--noflush"], given=text)


def asked(command: list[str], *, given: str | None = None) -> str:
    """What it says. Raises Failed with its last line."""
    environment = {**programs.environment(), "PATH": path()}
    try:
        ended = subprocess.run(
            command, input=given, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError) as trouble:
        raise Failed(CANNOT.format(why=f"{command[0]} does not work: {trouble}")) from trouble
    if ended.returncode:
        said = (ended.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Failed(CANNOT.format(why=f"{command[0]} says: {said}"))
    return ended.stdout


def path() -> str:
    """Where system programs are, which a plain user's PATH leaves out."""
    return f"{programs.variable('PATH', os.defpath)}:/usr/sbin:/sbin"
