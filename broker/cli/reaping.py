"""`anybinder reap`: what the clouds list, whose it is, what it has cost, and what becomes of it."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import typer

from broker import client
from broker.cli import _lines, _table, say
from broker.home import default_home

SECONDS = 120.0  # a sweep ends within a minute, whatever hangs
TITLES = ["what", "where", "whose", "launch", "age", "an hour", "so far", "", "why"]


def reap(*, dry_run: bool, as_json: bool) -> None:
    """Show it, having ended what nobody wants. Exits 1 where something could not be asked or ended."""
    found = _found(dry_run=dry_run)
    unasked = [one for one in found if one["verdict"] == "unasked"]
    if as_json:
        _lines(found)
    else:
        listed = [one for one in found if one["verdict"] != "unasked"]
        _table(TITLES, [_row(one, dry_run=dry_run) for one in listed], "Nothing carries this broker's tag.")
        for one in unasked:
            say(f"{one['backend']}{_of(one)}: could not be asked, since {_age(one['since'])}. {one['why']}")
    if unasked or any(one.get("trouble") for one in found):
        raise typer.Exit(1)


def _found(*, dry_run: bool) -> list[dict[str, Any]]:
    """From the broker that runs here, else by looking from this process."""
    try:
        at = client.running(default_home())
    except client.NotRunning:
        from broker.cli.running import reap as run

        return run(dry_run=dry_run)
    found: list[dict[str, Any]] = at.call("POST", f"/api/reap?dry_run={str(dry_run).lower()}", seconds=SECONDS)
    return found


def _row(one: dict[str, Any], *, dry_run: bool) -> list[str]:
    what = one["instance"] + (f" (+{len(one['parts'])})" if one["parts"] else "")
    whose = one["name"] or one["person"] or "nobody known"
    hourly = _money(one["price_per_hour"], one["currency"])
    so_far = _money(one["cost"], one["currency"])
    why = f"{one['why']}; {one['trouble']}" if one["trouble"] else one["why"]
    return [
        what,
        one["backend"],
        whose,
        one["launch"] or "–",
        _age(one["since"]),
        hourly,
        so_far,
        _fate(one, dry_run),
        why,
    ]


def _fate(one: dict[str, Any], dry_run: bool) -> str:
    if not one["ends"]:
        return "left"
    if dry_run:
        return "would end"
    return "could not end" if one["trouble"] else "ending"


def _of(one: dict[str, Any]) -> str:
    return f" (account of {one['name'] or one['person']})" if one["person"] else ""


def _money(amount: str | None, currency: str) -> str:
    if amount is None:
        return "unknown"
    known = Decimal(amount).normalize()
    if not known:
        return "free"
    return f"${known:f}" if currency == "USD" else f"{known:f} {currency}"


def _age(since: str | None) -> str:
    if since is None:
        return "unknown"
    minutes = int((dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(since)).total_seconds() // 60)
    if minutes < 120:
        return f"{max(0, minutes)} min"
    return f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} d"
