"""AWS's public price list: one file a region, asked of nobody in particular, read line by line.

The list of a large region has hundreds of megabytes and a line for every way of paying. Of these one is wanted: Linux
without paid software, on shared hardware, by the hour.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

import httpx

from providers import prices
from providers.aws.clients import Place
from providers.base import Price
from providers.errors import ProviderUnavailable

HOSTS = {"aws-cn": "https://pricing.cn-north-1.amazonaws.com.cn"}
COMMON = "https://pricing.us-east-1.amazonaws.com"  # also has the regions of the US government
SILENCE_SECONDS = 30
ALTOGETHER_SECONDS = 1800  # half a gigabyte at 300 kB/s
BYTES_MOST = 2 * 1024**3
LINE_MOST = 64 * 1024  # a row has two kilobytes
HEAD_MOST = 20  # lines before the one that names the columns; there are five
WANTED = {
    "TermType": "OnDemand",
    "Unit": "Hrs",
    "Tenancy": "Shared",
    "Operating System": "Linux",
    "Pre Installed S/W": "NA",
    "CapacityStatus": "Used",
}
NEEDED = (*WANTED, "PricePerUnit", "Currency", "Instance Type", "Region Code")


def read(place: Place, *, host: str = "") -> list[Price]:
    """What the list says now of this region. Takes minutes. Raises ProviderUnavailable: half a list is none."""
    address = f"{host or HOSTS.get(place.partition, COMMON)}/offers/v1.0/aws/AmazonEC2/current/{place.region}/index.csv"
    try:
        with (
            httpx.Client(timeout=SILENCE_SECONDS, trust_env=False) as client,
            client.stream("GET", address) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise ProviderUnavailable(f"The price list of AWS answered with status {answer.status_code}.")
            found = _prices(_bounded(answer), place.region)
    except httpx.HTTPError as error:
        raise ProviderUnavailable(f"The price list of AWS could not be read ({type(error).__name__}).") from error
    except (csv.Error, ValueError) as error:
        raise ProviderUnavailable("The price list of AWS is garbled.") from error
    if not found:
        raise ProviderUnavailable(f"The price list of AWS names no machine in {place.region}.")
    return found


def _bounded(answer: httpx.Response) -> Iterator[str]:
    """Its lines, as long as they come fast enough and are no more than a list can have."""
    ends = time.monotonic() + ALTOGETHER_SECONDS
    rest = ""
    for text in answer.iter_text():
        if time.monotonic() > ends or answer.num_bytes_downloaded > BYTES_MOST or len(rest) > LINE_MOST:
            raise ProviderUnavailable("The price list of AWS is too long, or comes too slowly. Try again later.")
        *lines, rest = (rest + text).split("\n")
        yield from lines
    if rest:
        yield rest


def _prices(lines: Iterator[str], region: str) -> list[Price]:
    rows = csv.reader(lines, strict=True)
    published, columns = _head(rows)
    found = [
        Price(
            region=region,
            machine=row["Instance Type"],
            price_per_hour=prices.known(row["PricePerUnit"]),
            currency=row["Currency"],
            source="AWS public price list",
            as_of=published,
        )
        for row in _rows(rows, columns)
        if _is_wanted(row, region)
    ]
    # Where a list names two, the dearer one is promised: a budget that is too large harms nobody.
    dearest: dict[str, Price] = {}
    for price in found:
        if price.machine not in dearest or price.price_per_hour > dearest[price.machine].price_per_hour:
            dearest[price.machine] = price
    return list(dearest.values())


def _head(rows: Iterator[list[str]]) -> tuple[str, list[str]]:
    """The day it was published, and the names of its columns."""
    published = ""
    for row, _ in zip(rows, range(HEAD_MOST), strict=False):
        if row[:1] == ["Publication Date"] and len(row) > 1:
            published = _day(row[1])
        if set(NEEDED) <= set(row):
            if not published:
                break
            return published, row
    raise ProviderUnavailable("What came in place of the price list of AWS is none.")


def _day(written: str) -> str:
    try:
        return datetime.fromisoformat(written).date().isoformat()
    except ValueError:
        return ""


def _rows(rows: Iterable[list[str]], columns: list[str]) -> Iterator[Mapping[str, str]]:
    for row in rows:
        if len(row) != len(columns):
            raise ProviderUnavailable("The price list of AWS breaks off, or is garbled.")
        yield dict(zip(columns, row, strict=True))


def _is_wanted(row: Mapping[str, str], region: str) -> bool:
    """Whether it is the hour of a machine that one pays as one goes; 0 stands for what is not known."""
    if not row["Instance Type"] or row["Region Code"] != region or row.get("MarketOption", "OnDemand") != "OnDemand":
        return False
    return all(row[name] == value for name, value in WANTED.items()) and float(row["PricePerUnit"] or 0) > 0
