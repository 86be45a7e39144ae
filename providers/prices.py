"""Tables of prices as files: what drivers look a price up in, and what a refresh writes.

A table says what is known and by whom. What is not known is left out of it: 0 is never a price.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import IO

from providers.base import Price
from providers.errors import InvalidOrder

COLUMNS = ("region", "machine", "spot", "price_per_hour", "currency", "source", "as_of")
SPOT = {"yes": True, "no": False}

Key = tuple[str, str, bool]
"""Region, machine, spot."""


def table(*paths: Path) -> Mapping[Key, Price]:
    """Every price in these files, the newest of each; of one day the one of the later file. A missing file is empty.

    Raises InvalidOrder, with file and line, where one cannot be read.
    """
    return newest(price for path in paths if path.exists() for price in read(path))


def newest(prices: Iterable[Price]) -> dict[Key, Price]:
    """By region, machine and spot, the newest of each; of one day the one that comes later."""
    found: dict[Key, Price] = {}
    for price in prices:
        key = (price.region, price.machine, price.spot)
        if key not in found or price.as_of >= found[key].as_of:
            found[key] = price
    return found


def read(path: Path) -> list[Price]:
    """The rows of one file. Raises InvalidOrder, with file and line: half a table is none."""
    try:
        seen = path.stat()
    except OSError as error:
        raise InvalidOrder(f"The table of prices {path.name} cannot be read: {error.strerror}.") from error
    return list(_read(path, seen.st_mtime_ns, seen.st_size))


@functools.lru_cache(maxsize=64)
def _read(path: Path, _changed: int, _size: int) -> tuple[Price, ...]:
    """Once for each state of the file: offers are asked for often, and tables change once a month."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(_rows(file, path.name))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidOrder(f"The table of prices {path.name} cannot be read: {error}.") from error


def _rows(file: IO[str], name: str) -> list[Price]:
    lines = csv.reader(file, strict=True)
    if tuple(next(lines, ())) != COLUMNS:
        raise InvalidOrder(f"{name}, line 1: the columns of a table of prices are {', '.join(COLUMNS)}.")
    prices = []
    for row in lines:
        try:
            prices.append(_price(row))
        except ValueError as error:
            raise InvalidOrder(f"{name}, line {lines.line_num}: {error}.") from error
    return prices


def _price(row: list[str]) -> Price:
    if len(row) != len(COLUMNS):
        raise ValueError(f"it has {len(row)} columns instead of {len(COLUMNS)}")
    given = dict(zip(COLUMNS, row, strict=True))
    if empty := [name for name, value in given.items() if not value.strip()]:
        raise ValueError(f"{empty[0]} is empty")
    if given["spot"] not in SPOT:
        raise ValueError("spot is yes or no")
    date.fromisoformat(given["as_of"])
    return Price(
        region=given["region"],
        machine=given["machine"],
        spot=SPOT[given["spot"]],
        price_per_hour=known(given["price_per_hour"]),
        currency=given["currency"],
        source=given["source"],
        as_of=given["as_of"],
    )


def known(written: str) -> Decimal:
    """A price as a list writes it. Raises ValueError for 0, which lists write for what they do not know, and for nonsense."""
    try:
        price = Decimal(written)
    except InvalidOperation:
        raise ValueError(f"“{written[:20]}” is no price") from None
    if not price.is_finite() or price <= 0:
        raise ValueError(f"“{written[:20]}” is no price: what is not known is left out")
    return price


def write(path: Path, prices: Iterable[Price]) -> None:
    """In place of what is there, all or nothing; sorted, so that two tables can be compared."""
    fresh = path.with_name(f".{path.name}.fresh")
    with fresh.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(COLUMNS)
        lines.writerows(_row(price) for _key, price in sorted(newest(prices).items()))
    fresh.replace(path)


def _row(price: Price) -> list[str]:
    spot = "yes" if price.spot else "no"
    cost = f"{price.price_per_hour.normalize():f}"
    return [price.region, price.machine, spot, cost, price.currency, price.source, price.as_of]
