"""`anybinder keys`: the keys that seal secrets, and those that sign this broker's tokens for clouds. Shows names, never keys.

Each runs in this process, on the table and the ring of the settings; brokers may go on running.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from broker.cli import Json, _lines, _table, give_up, say

if TYPE_CHECKING:
    from broker.service import Service

app = typer.Typer(help="Keys that seal secrets, and that sign tokens for clouds.", no_args_is_help=True)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Every key by its name: what it does, since when, until when."""
    with _service() as at:
        rows = [*_sealing(at), *_signing(at)]
    if as_json:
        return _lines(rows)
    shown = [[row["key"], row["for"], row["state"], row["from"] or "", row["until"] or ""] for row in rows]
    return _table(["key", "for", "", "signs from", "hidden from"], shown, "There are no keys yet.")


@app.command()
def new() -> None:
    """Print a fresh line for a ring of sealing keys. It is a secret: it is printed here and kept nowhere."""
    from broker import sealing

    print(sealing.new_line())


@app.command()
def rotate(
    at_once: Annotated[
        bool,
        typer.Option("--at-once", help="A key is feared stolen: the new one signs now, the old ones are gone at once."),
    ] = False,
) -> None:
    """Change the key that signs this broker's tokens for clouds. It changes by itself, too (issuer_key_days)."""
    from broker import identity

    with _service() as at:
        kid = identity.rotate(at, at_once=at_once)
        hours = at.settings.issuer_overlap_hours
    if at_once:
        return say(f"{kid} signs from now on. Clouds that keep our old list refuse us until they read it again.")
    return say(f"{kid} is published now, and signs in {hours:g} hours, when clouds have read it.")


@app.command()
def reseal() -> None:
    """Put every secret under the ring's first key. May be repeated; brokers may run."""
    with _service() as at:
        _reseal(at)


@app.command("rotate-sealing")
def rotate_sealing() -> None:
    """Put a fresh key first in the file of sealing keys, then every secret under it."""
    from broker import sealing

    with _service() as at:
        before = at.sealer.names
        name = sealing.add_first(at.settings)
        say(f"{name} is the first key in {sealing.file_of(at.settings)} now. Keep a copy of the file as safe as it is.")
        _reseal(at)
        ready = dt.datetime.now().astimezone() + dt.timedelta(seconds=sealing.RING_SECONDS)
    say(
        f"The old {'lines' if len(before) > 1 else 'line'} ({', '.join(before)}) may be taken away after {ready:%H:%M:%S}, "
        "when every broker has read the file again: run `anybinder keys reseal` then, and once it finds nothing, remove them."
    )


def _reseal(at: Service) -> None:
    from broker import resealing

    first, came = at.sealer.names[0], resealing.reseal(at)
    total = came.done.total()
    parts = ", ".join(f"{count} in {table}" for table, count in came.done.items())
    say(f"{total} put under {first}: {parts}." if total else f"Nothing to do: all is under {first}.")
    if came.shut:
        rows = ", ".join(came.shut[:10])
        give_up(
            f"No key of the ring opens {len(came.shut)} of them: {rows}. Bring back the key they name, and run this again."
        )


def _sealing(at: Service) -> Iterator[dict[str, Any]]:
    from broker import resealing

    counts = resealing.under(at)
    names = at.sealer.names if counts or _has_ring(at) else []
    for name in [*names, *(other for other in counts if other not in names)]:
        state = "missing" if name not in names else "seals" if name == names[0] else "opens"
        yield _row(name, "sealing", f"{state}, {counts[name]} under it")


def _has_ring(at: Service) -> bool:
    """Asking for its names would make one."""
    from broker import sealing

    chosen = at.settings
    given = bool(chosen.sealing_keys.get_secret_value() or chosen.sealing_key_command)
    return given or sealing.file_of(chosen).exists()


def _signing(at: Service) -> Iterator[dict[str, Any]]:
    from broker import identity

    now, signing = at.now(), identity.signs_now(at)
    for key in identity.keys(at):
        gone = key.hidden_at is not None and key.hidden_at <= now
        state = (
            "hidden" if gone else "signs" if key.kid == signing else "will sign" if key.signs_at > now else "published"
        )
        hidden = key.hidden_at.isoformat()[:16] if key.hidden_at else None
        yield _row(key.kid, "signing", state, key.signs_at.isoformat()[:16], hidden)


def _row(key: str, use: str, state: str, since: str | None = None, until: str | None = None) -> dict[str, Any]:
    return {"key": key, "for": use, "state": state, "from": since, "until": until}


@contextmanager
def _service() -> Iterator[Service]:
    """The broker's insides, in this process. What it refuses ends with its sentence."""
    from broker import errors, logs, service
    from broker.cli import running

    chosen = running._settings()
    logs.configure(chosen)
    at = service.build(chosen)
    try:
        yield at
    except errors.BrokerError as refusal:
        give_up(str(refusal))
    finally:
        at.close()
