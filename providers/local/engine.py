"""The container engine of a backend on this computer: what it is set up as, what it offers, what an agent is told of it."""

from __future__ import annotations

import ipaddress
import math
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from providers.base import Order, Resources, Setting
from providers.errors import InvalidOrder
from providers.local.containers import Containers, usual_url

KINDS = ("process", "docker", "podman")
BUILDERS = ("uv", "stock")
NETWORKS = ("fenced", "open", "none")
MEMORY_MB = 2048  # what mybinder.org gives
SETTINGS = (
    Setting(name="engine", help="What runs a session: process (as whoever runs the broker), docker or podman.",
            default="process"),
    Setting(name="engine_url", help="The engine's socket, unix://… . Empty: where Docker or Podman has it."),
    Setting(name="engine_config", help="Folder of the engine's client configuration (DOCKER_CONFIG). Empty: the usual."),
    Setting(name="cpu", help="CPUs of a container whose launch asks for none.", default="1"),
    Setting(name="most_cpu", help="CPUs that a launch may ask for. Empty: all of this computer's."),
    Setting(name="most_memory_mb", help="Memory that a launch may ask for. Empty: all of this computer's."),
    Setting(name="pids", help="Processes and threads that one container may have.", default="1024"),
    Setting(name="network", help="What a container reaches: the internet only (fenced), all that this computer reaches "
            "(open), or nothing (none).", default="fenced"),
    Setting(name="network_allowed", help="Private addresses or networks that a fenced container may reach all the same, "
            "with commas between."),
    Setting(name="base_image", help="Image that environments are built on.",
            default="docker.io/library/buildpack-deps:jammy"),
    Setting(name="builder", help="How Python environments without conda are built: uv, or stock (repo2docker's own).",
            default="uv"),
    Setting(name="registry", help="Prefix of image names in a registry that keeps what was built. Empty: none. Its login is "
            "the client configuration's; whether to do without TLS is the engine's own setting."),
)  # fmt: skip
CANNOT_FENCE = (
    "A container cannot be fenced off from this computer's network, because {why}. Run the broker as root on a Linux with "
    "iptables; or set this backend's network to none or open: what it builds may then use this computer's network, so "
    "only the person at this computer may launch there."
)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Docker or Podman, as this backend uses it. Reading its settings asks nobody."""

    kind: str
    url: str
    config: str
    cpu: float
    memory_mb: int
    most: Resources
    pids: int
    network: str
    network_allowed: tuple[str, ...]
    building: Mapping[str, Any]

    @property
    def containers(self) -> Containers:
        return Containers(url=self.url)

    def size(self, asked: Resources) -> Resources | None:
        """The limits of a container for this wish: what is asked, else the default; None where that is too large."""
        total_cpu, total_mb = float(psutil.cpu_count() or 1), psutil.virtual_memory().total // 2**20
        most_cpu, most_mb = self.most.cpu or total_cpu, self.most.memory_mb or total_mb
        size = Resources(
            cpu=asked.cpu or min(self.cpu, most_cpu, total_cpu),
            memory_mb=asked.memory_mb or min(self.memory_mb, most_mb, total_mb),
        )
        if (size.cpu or 0) > min(most_cpu, total_cpu) or (size.memory_mb or 0) > min(most_mb, total_mb):
            return None
        return size

    @property
    def confined(self) -> bool:
        """Whether neither sessions nor builds reach this computer's network, and with it what trusts this computer: a build
        has a network also where a session has none."""
        return self.network == "fenced" or (self.network == "none" and not why_no_fence())

    def refuse_without_fence(self) -> None:
        """Raises InvalidOrder, with what to do, where a fence is wanted and cannot be made."""
        if self.network == "fenced" and (why := why_no_fence()):
            raise InvalidOrder(CANNOT_FENCE.format(why=why))

    def told(self, order: Order) -> dict[str, Any]:
        """For the agent's boot configuration. The limits are those that were offered."""
        has = order.offer.resources
        return {
            "kind": self.kind,
            "url": self.url,
            "config": self.config,
            "memory_mb": has.memory_mb or self.memory_mb,
            "cpu": has.cpu or self.cpu,
            "pids": self.pids,
            "network": self.network,
            "network_allowed": list(self.network_allowed),
            "labels": order.tag.as_labels(),
            **self.building,
        }


def why_no_fence() -> str:
    """Why no fence can be made here; empty where one can."""
    if not sys.platform.startswith("linux"):
        return "this is no Linux"
    if os.geteuid() != 0:
        return "the broker does not run as root"
    return (
        "" if shutil.which("iptables", path="/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin") else "there is no iptables"
    )


def configured(configuration: Mapping[str, str]) -> Engine | None:
    """The engine of this configuration; None for plain processes. Raises InvalidOrder with a sentence."""
    told = {each.name: configuration.get(each.name) or each.default or "" for each in SETTINGS}
    kind = _one_of("engine", told["engine"], KINDS)
    if kind == "process":
        return None
    url = told["engine_url"] or usual_url(kind)
    if not url.startswith("unix://"):
        raise InvalidOrder(f"engine_url must be a socket of this computer, unix://…, not {url!r}.")
    return Engine(
        kind=kind,
        url=url,
        config=told["engine_config"],
        cpu=_number("cpu", told["cpu"]),
        memory_mb=int(_number("memory_mb", configuration.get("memory_mb") or str(MEMORY_MB))),
        most=Resources(
            cpu=_number("most_cpu", told["most_cpu"]) if told["most_cpu"] else None,
            memory_mb=int(_number("most_memory_mb", told["most_memory_mb"])) if told["most_memory_mb"] else None,
        ),
        pids=int(_number("pids", told["pids"])),
        network=_one_of("network", told["network"], NETWORKS),
        network_allowed=_networks(told["network_allowed"]),
        building={
            "base_image": told["base_image"],
            "builder": _one_of("builder", told["builder"], BUILDERS),
            "registry": told["registry"],
        },
    )


def _one_of(name: str, text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise InvalidOrder(f"{name} must be {', '.join(allowed[:-1])} or {allowed[-1]}, not {text!r}.")
    return text


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (number > 0 and math.isfinite(number)):
        raise InvalidOrder(f"{name} must be a number above zero, not {text!r}.")
    return number


def _networks(text: str) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.IPv4Network(word, strict=False)) for word in re.split(r"[,\s]+", text) if word)
    except ValueError as fault:
        raise InvalidOrder(
            f"network_allowed must be IPv4 addresses or networks with commas between: {fault}."
        ) from None
