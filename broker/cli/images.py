"""`anybinder images`: what this computer keeps of what was built, and removing it. No broker needs to run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli import Json, _lines, _table, give_up, say

if TYPE_CHECKING:
    from broker.environments.keeping import Kept

UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, kw_only=True)
class Store:
    """What one backend on this computer builds into: a cache, and its engine where it has one."""

    backend: str
    cache: Path
    engine: dict[str, Any] | None


app = typer.Typer(help="What was built and is kept: list it, remove it.", invoke_without_command=True)


@app.callback()
def list_(context: typer.Context, as_json: Json = False) -> None:
    """Images and environments that builds have left, longest unused first, for every backend on this computer."""
    if context.invoked_subcommand:
        return None
    rows = list(_kept())
    if as_json:
        return _lines([_shown(one, store) for store, one in rows])
    titles = ["name", "kind", "repository", "commit", "size", "made", "last used", ""]
    return _table(titles, [_row(one) for _, one in rows], "Nothing is kept here.")


@app.command()
def remove(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Names or keys; `anybinder images` shows them.")
    ] = None,
    unused_for: Annotated[str | None, typer.Option(help="All that no launch has used for so long, like 7d.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what is kept and no session uses. It is built again when it is wanted again."""
    from broker.environments import keeping
    from broker.environments.programs import Failed

    if bool(names) + bool(unused_for) + everything != 1:
        give_up("Say which: a NAME, --unused-for 7d, or --all.", 2)
    rows = list(_kept())
    chosen = _named(rows, names) if names else [row for row in rows if _is_older(row[1], unused_for)]
    refused = 0
    for store, one in chosen:
        try:
            if dry_run and one.in_use:
                raise Failed(f"{one.name} {one.in_use}")
            if not dry_run:
                keeping.remove(one, store.cache, store.engine)
        except Failed as refusal:
            refused += 1
            say(str(refusal))
            continue
        _lines([{"removed": one.name, "size": one.size, "dry_run": dry_run}]) if as_json else print(one.name)
    if not chosen:
        say("There is nothing to remove.")
    if refused and names:
        raise typer.Exit(1)


def _stores() -> list[Store]:
    """Those of all backends on this computer; one that several share once, for the first of them."""
    from broker import backends, service
    from broker.cli.running import _settings

    at = service.build(_settings(), migrate=False)  # only what the settings say is read
    try:
        offered = [(each.name, each.provider.keeps()) for each in backends.offered(at)]
    finally:
        at.close()
    found = {}
    for name, keeps in reversed(offered):
        if keeps:
            engine = dict(keeps.engine) if keeps.engine else None
            found[keeps.cache, (engine or {}).get("url")] = Store(backend=name, cache=keeps.cache, engine=engine)
    return list(found.values())


def _kept() -> Iterator[tuple[Store, Kept]]:
    """All of it, each once: two backends may share a cache or an engine. An engine that does not answer is told, not fatal."""
    from broker.environments import keeping
    from broker.environments.programs import Failed

    seen: set[tuple[str, str]] = set()
    for store in _stores():
        try:
            found = keeping.everything(store.cache, store.engine)
        except Failed as trouble:
            say(f"{store.backend}: {trouble}")
            found = keeping.everything(store.cache, None)
        for one in found:
            if (one.kind, one.name) not in seen:
                seen.add((one.kind, one.name))
                yield store, one


def _named(rows: list[tuple[Store, Kept]], names: list[str]) -> list[tuple[Store, Kept]]:
    """Those of these names; a key may be shortened. Ends where one is unknown or could be several."""
    chosen = []
    for name in names:
        fits = [row for row in rows if row[1].name == name] or [
            row for row in rows if len(name) >= 6 and row[1].key.startswith(name)
        ]
        if len(fits) != 1:
            give_up(f"{name}: {'there is no such image or environment' if not fits else 'that could be several'}.")
        chosen += fits
    return chosen


def _is_older(one: Kept, age: str | None) -> bool:
    if age is None:
        return True
    told = re.fullmatch(r"(\d+)([mhdw])", age)
    if told is None:
        give_up(f"{age} is no time. Write a number and m, h, d or w, like 7d.", 2)
    return datetime.now(UTC) - one.used_at > timedelta(**{UNITS[told[2]]: int(told[1])})


def _shown(one: Kept, store: Store) -> dict[str, Any]:
    times = {"made_at": one.made_at.isoformat(), "used_at": one.used_at.isoformat()}
    return {**asdict(one), **times, "backend": store.backend}


def _row(one: Kept) -> list[str]:
    now = datetime.now(UTC)
    size = f"{one.size / 1e6:.0f} MB" if one.size < 1e9 else f"{one.size / 1e9:.1f} GB"
    in_use = re.sub(r"[:.].*", "", one.in_use)
    return [
        one.name,
        one.kind,
        one.repo,
        one.commit[:12],
        size,
        _ago(now - one.made_at),
        _ago(now - one.used_at),
        in_use,
    ]


def _ago(age: timedelta) -> str:
    minutes = int(age.total_seconds() // 60)
    if minutes < 120:
        return f"{max(0, minutes)} min ago"
    return f"{minutes // 60} h ago" if minutes < 2880 else f"{minutes // 1440} d ago"
