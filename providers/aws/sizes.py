"""Which machines there are in the region, by EC2's own list, and in which zones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from providers.aws.clients import Caller
from providers.base import Resources

# General, compute and memory of the last generations, and what carries a graphics card. EC2 has some 900 types in a
# region; its list is read by the page, so it is asked for these alone.
FAMILIES = ("t3", "t3a", "t4g", "m5", "m6i", "m7i", "m7g", "m8g", "c6i", "c7i", "c7g", "r6i", "r7i", "r7g")
WITH_GPU = ("g4dn", "g5", "g6")
LEAST = Resources(cpu=2, memory_mb=4096)  # what a session gets that asks for nothing: an environment is built on it
PAGE = 100  # the most that EC2 takes


@dataclass(frozen=True, kw_only=True)
class Size:
    """One type of machine."""

    name: str
    cpu: int
    memory_mb: int
    architecture: str
    gpu: int = 0
    gpu_name: str = ""
    spot: bool = False


def fitting(caller: Caller, asked: Resources, architectures: Sequence[str]) -> list[Size]:
    """Those that are as large as asked, smallest first. Graphics cards only for whom they are asked for."""
    found = _read(caller, WITH_GPU if asked.gpu else FAMILIES)
    fit = [size for size in found if size.architecture in architectures and _fits(size, asked)]
    return sorted(fit, key=lambda size: (size.cpu, size.memory_mb, size.architecture != "x86_64", size.name))


def zones(caller: Caller, names: Iterable[str]) -> Mapping[str, list[str]]:
    """In which zones each of these types is offered, by its name."""
    found: dict[str, list[str]] = defaultdict(list)
    where = [{"Name": "instance-type", "Values": sorted(names)}]
    for page in _pages(caller, "DescribeInstanceTypeOfferings", LocationType="availability-zone", Filters=where):
        for each in page["InstanceTypeOfferings"]:
            found[each["InstanceType"]].append(each["Location"])
    return {name: sorted(places) for name, places in found.items()}


def _read(caller: Caller, families: Sequence[str]) -> Iterator[Size]:
    wanted = {
        "current-generation": ["true"],
        "bare-metal": ["false"],
        "instance-type": [f"{family}.*" for family in families],
    }
    filters = [{"Name": name, "Values": values} for name, values in wanted.items()]
    for page in _pages(caller, "DescribeInstanceTypes", Filters=filters):
        yield from map(_size, page["InstanceTypes"])


def _pages(caller: Caller, operation: str, **parameters: Any) -> Iterator[dict[str, Any]]:
    more: dict[str, Any] = {}
    while True:
        page = caller.ask("ec2", operation, **parameters, MaxResults=PAGE, **more)
        yield page
        if not page.get("NextToken"):
            return
        more = {"NextToken": page["NextToken"]}


def _size(found: Mapping[str, Any]) -> Size:
    cards = found.get("GpuInfo", {}).get("Gpus", [])
    return Size(
        name=found["InstanceType"],
        cpu=found["VCpuInfo"]["DefaultVCpus"],
        memory_mb=found["MemoryInfo"]["SizeInMiB"],
        architecture="arm64" if "arm64" in found["ProcessorInfo"]["SupportedArchitectures"] else "x86_64",
        gpu=sum(card["Count"] for card in cards),
        gpu_name=" ".join(f"{card.get('Manufacturer', '')} {card.get('Name', '')}".strip() for card in cards),
        spot="spot" in found.get("SupportedUsageClasses", []),
    )


def _fits(size: Size, asked: Resources) -> bool:
    return (
        size.cpu >= (asked.cpu or LEAST.cpu or 0)
        and size.memory_mb >= (asked.memory_mb or LEAST.memory_mb or 0)
        and size.gpu >= (asked.gpu or 0)
    )
