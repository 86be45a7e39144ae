"""The curated table `prices.csv`, made anew: `python -m providers.aws.price_list`.

Its source is the list that comes with libcloud, which is not clean: it writes 0 for what it does not know, and in many cells
has the price of a dedicated machine (6 to 10 % more) in place of the usual one. So no cell is believed alone:

- In most families AWS's prices go by size. The lowest price of a unit of size in a region is the usual one, where at least
  two sizes of the family say the same; what is dearer is left out. What is missing is computed from the largest size that
  is known, and its source says so.
- Where prices go by no size, only what another public list says as well is taken (`COMPARED`).

`anybinder prices refresh` asks AWS itself, and what that says goes before this table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

from providers import prices
from providers.base import Price

TABLE = Path(__file__).with_name("prices.csv")
SOURCE = "libcloud pricing.json"
REGIONS = ("us-east-1", "us-east-2", "us-west-2", "eu-central-1", "eu-west-1")
FAMILIES = {
    "t3": "small medium large xlarge 2xlarge",
    "t3a": "small medium large xlarge 2xlarge",
    "t4g": "small medium large xlarge 2xlarge",
    "m5": "large xlarge 2xlarge 4xlarge 8xlarge",
    "m6i": "large xlarge 2xlarge 4xlarge 8xlarge",
    "m7i": "large xlarge 2xlarge 4xlarge 8xlarge",
    "m7g": "medium large xlarge 2xlarge 4xlarge 8xlarge",
    "c6i": "large xlarge 2xlarge 4xlarge 8xlarge",
    "c7i": "large xlarge 2xlarge 4xlarge 8xlarge",
    "c7g": "medium large xlarge 2xlarge 4xlarge 8xlarge",
    "r6i": "large xlarge 2xlarge 4xlarge 8xlarge",
    "r7g": "medium large xlarge 2xlarge 4xlarge 8xlarge",
}
"""Families whose prices go by size, and the sizes that the table has."""
UNITS = {
    "nano": Decimal("0.25"),
    "micro": Decimal("0.5"),
    "small": Decimal(1),
    "medium": Decimal(2),
    "large": Decimal(4),
    "xlarge": Decimal(8),
    **{f"{count}xlarge": Decimal(8 * count) for count in (2, 4, 8, 12, 16, 24, 32, 48)},
}
"""How many units of size a machine has: AWS's own normalization factors."""
SAME = Decimal("1.015")  # prices are rounded to four digits, and a dedicated machine is 6 % dearer at least
EVERYWHERE_IN_THE_US = ("us-east-1", "us-east-2", "us-west-2")
COMPARED = {
    "g4dn.xlarge": ("us-east-1", "us-west-2", "eu-west-1"),
    "g4dn.2xlarge": EVERYWHERE_IN_THE_US,
    "g5.xlarge": ("us-east-1",),
    "g5.2xlarge": ("us-east-1", "us-west-2"),
    "g5.4xlarge": ("us-west-2",),
    "g6.xlarge": (*EVERYWHERE_IN_THE_US, "eu-central-1"),
    "g6.2xlarge": EVERYWHERE_IN_THE_US,
    "g6.8xlarge": (*EVERYWHERE_IN_THE_US, "eu-central-1"),
}
"""Machines of other families, and the regions where another public list says the same as libcloud's."""

Machines = Mapping[str, Mapping[str, Any]]


def curated() -> Iterator[Price]:
    """What can be taken from libcloud's list."""
    listed = json.loads(resources.files("libcloud").joinpath("data", "pricing.json").read_text())
    as_of = datetime.fromtimestamp(listed["updated"], UTC).date().isoformat()
    machines = listed["compute"]["ec2_linux"]
    for machine, region, cost, source in [*_by_size(machines), *_compared(machines)]:
        yield Price(region=region, machine=machine, price_per_hour=cost, source=source, as_of=as_of)


def _by_size(machines: Machines) -> Iterator[tuple[str, str, Decimal, str]]:
    for family, wanted in FAMILIES.items():
        for region in REGIONS:
            usual = _usual(machines, family, region)
            for size in wanted.split() if usual else ():
                machine = f"{family}.{size}"
                if size in usual:
                    yield machine, region, usual[size], SOURCE
                else:
                    largest = max(usual, key=UNITS.__getitem__)
                    cost = usual[largest] * UNITS[size] / UNITS[largest]
                    yield machine, region, round(cost, 5), f"{SOURCE}, by size from {family}.{largest}"


def _usual(machines: Machines, family: str, region: str) -> dict[str, Decimal]:
    """The sizes whose price is the usual one; none where only one size would say so."""
    costs = {size: _cost(machines, f"{family}.{size}", region) for size in UNITS}
    units = {size: cost / UNITS[size] for size, cost in costs.items() if cost}
    lowest = min(units.values())
    usual = {size: costs[size] for size, unit in units.items() if unit < lowest * SAME}
    return usual if len(usual) > 1 else {}


def _compared(machines: Machines) -> Iterator[tuple[str, str, Decimal, str]]:
    for machine, regions in COMPARED.items():
        yield from ((machine, region, _cost(machines, machine, region), SOURCE) for region in regions)


def _cost(machines: Machines, machine: str, region: str) -> Decimal:
    return Decimal(str(machines.get(machine, {}).get(region) or 0))


if __name__ == "__main__":
    prices.write(TABLE, curated())
