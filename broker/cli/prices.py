"""`anybinder prices`: what machines cost, by whose word and when. No broker needs to run."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli import Json, _lines, _table, give_up, say

if TYPE_CHECKING:
    from broker import backends
    from broker.service import Service
    from providers import base

Name = Annotated[str | None, typer.Option("--backend", metavar="NAME", help="Of this backend only.")]

app = typer.Typer(help="What machines cost an hour: show it, read it anew.", invoke_without_command=True)


@app.callback()
def list_(context: typer.Context, backend: Name = None, as_json: Json = False) -> None:
    """The prices in force, each with its source and its day. What is not listed is not known."""
    from broker import pricing
    from providers import errors as clouds

    if context.invoked_subcommand:
        return None
    now, without = dt.datetime.now(dt.UTC), []
    found: list[tuple[str, base.Price]] = []
    with _asked_for(backend) as (_, chosen):
        for each in chosen:
            try:
                table = each.provider.prices()
            except clouds.ProviderError as error:
                give_up(str(error))
            found += [(each.name, price) for price in table]
            without += [] if table else [each.name]
    if as_json:
        return _lines([{"backend": name, **_shown(price), "old": pricing.is_old(price, now)} for name, price in found])
    titles = ["backend", "region", "machine", "an hour", "as of", "source", ""]
    rows = [_row(name, price, now) for name, price in sorted(found, key=lambda one: (one[0], one[1].machine))]
    if without:
        say(
            f"Without a table, since its offers say themselves what they cost, as far as that is known: {', '.join(without)}."
        )
    return _table(titles, rows, "No backend has a table of prices.")


@app.command()
def refresh(backend: Name = None, as_json: Json = False) -> None:
    """Read them anew from the clouds' public lists. Takes minutes; where a list cannot be read, the old prices stay."""
    from broker import pricing
    from providers import errors as clouds

    failed = False
    with _asked_for(backend) as (at, chosen):
        for each in chosen:
            told: dict[str, Any] = {"backend": each.name, "prices": 0, "error": ""}
            try:
                told["prices"] = pricing.refresh(at.settings, each)
            except clouds.ProviderError as error:
                told["error"], failed = str(error), True
            _lines([told]) if as_json else say(f"{each.name}: {_said(told)}")
    if failed:
        raise typer.Exit(1)


@contextmanager
def _asked_for(name: str | None) -> Iterator[tuple[Service, list[backends.Backend]]]:
    """Every backend, or the one of this name."""
    from broker import backends, errors, service
    from broker.cli.running import _settings

    at = service.build(_settings(), migrate=False)  # only what the settings say is read
    try:
        yield at, [backends.named(at, name)] if name else backends.offered(at)
    except errors.BadRequest as unknown:
        give_up(str(unknown), 2)
    finally:
        at.close()


def _said(told: dict[str, Any]) -> str:
    if told["error"]:
        return f"{told['error']} The prices of before stay in force."
    if not told["prices"]:
        return "It has no public price list; what the operator has set, or its own offers, say what it costs."
    return f"{told['prices']} prices."


def _shown(price: base.Price) -> dict[str, Any]:
    return {
        "region": price.region,
        "machine": price.machine,
        "spot": price.spot,
        "price_per_hour": f"{price.price_per_hour:f}",
        "currency": price.currency,
        "source": price.source,
        "as_of": price.as_of,
    }


def _row(backend: str, price: base.Price, now: dt.datetime) -> list[str]:
    from broker import pricing

    old = f"{pricing.age(price, now).days} days old" if pricing.is_old(price, now) else ""
    cost = f"{price.price_per_hour.normalize():f} {price.currency}{' (spot)' if price.spot else ''}"
    return [backend, price.region, price.machine, cost, price.as_of, price.source, old]
