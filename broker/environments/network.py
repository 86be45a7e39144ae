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
import hashlib
import ipaddress
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.environments import container, engines, programs
from broker.environments.programs import Failed

if TYPE_CHECKING:
    import docker

FENCED = "anybf+"  # all bridges that begin so: of a computer that has several engines, each has one of its own
NETWORKS = {"fenced": "anybinder", "open": "anybinder-open"}
BUILDS = ["docker0", "podman0"]  # the engines' default bridges: builds have no other
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
REFUSED_IPV6 = ("fc00::/7", "fe80::/10", "fec0::/10")  # private, with Amazon's metadata; link-local; the older private
RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
SECONDS = 20
LOOKS = 50  # a tenth of a second each
CANNOT = (
    "A container cannot be fenced off from this computer's network here, because {why}. Run the broker as root on a Linux "
    "with iptables; or set the backend's network to none or open: what it builds may then use this computer's network, so "
    "only the person at this computer may launch there."
)


def ensure(client: docker.APIClient, engine: dict[str, Any]) -> str:
    """The network that a container shall be put in; it is there, with its fence. May be repeated, by several at once.

    Raises Failed where a fence is wanted and cannot be made.
    """
    kind = engine["network"]
    if kind == "none":
        return "none"
    if kind == "fenced":
        refuse_elsewhere(client)
    made = make_network(client, engine)
    if kind == "fenced":
        filter_bridged()
        make_fence(engine.get("network_allowed") or [], name_servers() + own_name_servers(engine, made))
    return NETWORKS[kind]


def before_build(engine: dict[str, Any]) -> None:
    """Builds reach the internet and nothing else, wherever a fence can be made. Raises Failed where it is wanted and cannot.

    A build needs a network even where a session gets none.
    """
    if engine["network"] == "fenced" or (engine["network"] == "none" and not why_not()):
        with engines.client(engine) as client:
            refuse_elsewhere(client)
        make_fence(engine.get("network_allowed") or [], name_servers())


def refuse_elsewhere(client: docker.APIClient) -> None:
    """Raises Failed where containers are not behind this computer's packet filter, and all rules in it would be for nothing."""
    if container.reach(client.info()) != "direct":
        raise Failed(CANNOT.format(why="the engine is rootless, or in a machine of its own, and its network elsewhere"))


def make_network(client: docker.APIClient, engine: dict[str, Any]) -> dict[str, Any]:
    """A bridge of ours, whose containers do not see each other; as the engine describes it."""
    import docker

    kind = engine["network"]
    if found := client.networks(names=[f"^{NETWORKS[kind]}$"]):
        if is_behind(found[0], engine):
            return dict(found[0])
        client.remove_network(NETWORKS[kind])  # somebody else's of that name; refused while it is used
    options = {
        "com.docker.network.bridge.name": bridge_of(engine),
        "com.docker.network.bridge.enable_icc": "false",
    }
    refusal: docker.errors.APIError | None = None
    try:
        client.create_network(NETWORKS[kind], driver="bridge", options=options, check_duplicate=True, enable_ipv6=False)
    except docker.errors.APIError as refused:
        refusal = refused
    # Where another was faster, its bridge is in the way a moment before its network is listed.
    for _ in range(LOOKS):
        if found := client.networks(names=[f"^{NETWORKS[kind]}$"]):
            return dict(found[0])
        programs.pause(0.1)
    raise refusal or Failed("The container engine lists no network of ours although it made one. Restart it.")


def is_behind(found: dict[str, Any], engine: dict[str, Any]) -> bool:
    """Whether the rules hold for it. Podman does not say what a bridge is called, and takes the name it is given."""
    name = (found.get("Options") or {}).get("com.docker.network.bridge.name")
    return (
        engine["network"] != "fenced"
        or (name or "").startswith(FENCED[:-1])
        or (not name and engine.get("kind") == "podman")
    )


def bridge_of(engine: dict[str, Any]) -> str:
    """The name of its interface, at most 15 letters, whose beginning says whether the fence holds for it."""
    head = FENCED.rstrip("+") if engine["network"] == "fenced" else "anybo"
    return head + hashlib.sha256(engine["url"].encode()).hexdigest()[:8]


def own_name_servers(engine: dict[str, Any], made: dict[str, Any]) -> list[str]:
    """Podman answers names on the bridge's own address; Docker does inside the container."""
    if engine.get("kind") != "podman":
        return []
    return [
        each["Gateway"] for each in (made.get("IPAM") or {}).get("Config") or [] if is_asked(each.get("Gateway", ""))
    ]


def filter_bridged() -> None:
    """What goes from one container to its neighbour passes the packet filter too. Docker sees to it; Podman does not.

    Raises Failed where the kernel cannot.
    """
    if not BRIDGED.exists():
        with contextlib.suppress(Failed):
            asked(["modprobe", "br_netfilter"])
    try:
        if BRIDGED.read_text().strip() != "1":
            BRIDGED.write_text("1")
    except OSError as trouble:
        raise Failed(
            CANNOT.format(why=f"traffic between containers cannot be filtered ({trouble.strerror})")
        ) from trouble


def make_fence(allowed: list[str], names: list[str]) -> None:
    """All rules anew, and what leads to them first of all. Raises Failed where that is not permitted."""
    if why := why_not():
        raise Failed(CANNOT.format(why=why))
    forward = [f"-i {each} -j ANYBINDER" for each in (FENCED, *BUILDS)]
    leads = {
        "FORWARD": forward,
        "DOCKER-USER": forward,  # Docker puts its own first when it starts again, but this before them
        "INPUT": [f"{rule}-HOST" for rule in forward],
        "OUTPUT": [f"-o {FENCED} -j ANYBINDER-OUT"],
    }
    put_in_place("iptables", chains(allowed, names), leads)
    if shutil.which("ip6tables", path=path()):
        put_in_place("ip6tables", [], inner_ipv6())


def inner_ipv6() -> dict[str, list[str]]:
    """By chain. Our network has no IPv6; the engine's default bridge may have, and then there is a way in for builds."""
    refuse = "-j REJECT --reject-with icmp6-adm-prohibited"
    way_in, way_out = ([f"{way} {FENCED} -j DROP"] for way in ("-i", "-o"))
    private = [f"-d {each} -i {bridge} {refuse}" for bridge in BUILDS for each in REFUSED_IPV6]
    asks = [f"-i {bridge} ! -p ipv6-icmp -m conntrack ! --ctstate RELATED,ESTABLISHED {refuse}" for bridge in BUILDS]
    return {"FORWARD": [*way_in, *private], "INPUT": [*way_in, *asks], "OUTPUT": way_out}


def put_in_place(program: str, lines: list[str], leads: dict[str, list[str]]) -> None:
    """These lines, and these rules at the head of their chains, in one step; again where another was at it meanwhile."""
    for attempt in range(5):
        now = asked([program, "--wait", "-S"]).splitlines()
        moved = [line for chain, rules in leads.items() for line in moves(now, chain, rules)]
        if not lines and not moved:
            return
        try:
            asked(
                [f"{program}-restore", "--wait", "--noflush"],
                given="\n".join(["*filter", *lines, *moved, "COMMIT", ""]),
            )
            return
        except Failed:
            if attempt == 4:
                raise


def moves(now: list[str], chain: str, rules: list[str]) -> list[str]:
    """What brings these rules to the head of the chain; nothing where they are there, or the chain is not.

    The engines put theirs at the head as well, and one that accepts before ours are asked would open the fence.
    """
    wanted = [f"-A {chain} {rule}" for rule in rules]
    there = [line for line in now if line.startswith(f"-A {chain} ") and not line.endswith(" -j DOCKER-USER")]
    exists = any(line == f"-N {chain}" or line.startswith(f"-P {chain} ") for line in now)
    if there[: len(wanted)] == wanted or not exists:
        return []
    gone = [f"-D {line[3:]}" for line in there if line in wanted]
    return [*gone, *(f"-I {chain} {at} {rule}" for at, rule in enumerate(rules, start=1))]


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
        return " ".join(words[2:]) in inner_ipv6().get(words[1], [])
    return words[-1].startswith("ANYBINDER")


def why_not() -> str:
    """Why no rules can be made here; empty where they can."""
    if os.geteuid() != 0:
        return "the broker does not run as root"
    return "" if shutil.which("iptables", path=path()) else "there is no iptables"


def chains(allowed: list[str], servers: list[str]) -> list[str]:
    """Our three chains, as iptables-restore reads them: those that are named are replaced whole."""
    answers = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
    refuse = "-j REJECT --reject-with icmp-admin-prohibited"  # a refusal is noticed at once, silence after minutes
    names = [f"-d {each} -p {kind} --dport 53 -j RETURN" for each in servers for kind in ("udp", "tcp")]
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
    return [*heads, *lines]


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
