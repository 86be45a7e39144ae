"""`anybinder peers`: other hubs that launches can be forwarded to. Works on the table; a broker may go on running."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from broker.cli import Json, _lines, _table, give_up, say

if TYPE_CHECKING:
    from broker import peers
    from broker.service import Service
    from federation import binderhub

app = typer.Typer(help="Other hubs that launches can be forwarded to.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="PEER", help="Its name; `anybinder peers list` shows it.")]
WORDS = {
    "open": "open",
    "unknown": "not looked at yet",
    "full": "full",
    "draining": "draining",
    "resting": "resting",
    "down": "down",
}


@app.command()
def add(
    url: Annotated[str, typer.Argument(help="Where its BinderHub answers, like https://mybinder.org.")],
    name: Annotated[str | None, typer.Option(help="What --on calls it. [default: made of its host]")] = None,
    title: Annotated[str, typer.Option(help="What pages call it. [default: its host]")] = "",
    hub: Annotated[
        str, typer.Option(metavar="URL", help="Its JupyterHub, up to /hub. [default: what is before /services]")
    ] = "",
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Another origin its sessions live on: https://hub.example.org or https://*.example.org."),
    ] = None,
    weight: Annotated[float, typer.Option(help="Its share beside the others'.")] = 1.0,
    private: Annotated[bool, typer.Option("--private", help="What is launched there does not become public.")] = False,
    token: Annotated[bool, typer.Option("--token", help="It asks people for a token of their own.")] = False,
    terms: Annotated[str, typer.Option(metavar="URL", help="Its terms of use.")] = "",
    privacy: Annotated[str, typer.Option(metavar="URL", help="Its privacy policy.")] = "",
) -> None:
    """Offer this hub as a place to run. It is looked at once, and added whatever it says."""
    from broker import peers

    known = {"title": title, "weight": weight, "publishes": not private, "anonymous": not token}
    known |= {"terms_url": terms, "privacy_url": privacy, "origins": tuple(origin or ())}
    setting = _setting({"name": name or _name(url), **_addresses(url, hub), **known})
    with _service() as at:
        peers.add(at, setting)
        say(f"“{setting.name}” is a peer from now on.")
        _told(peers.look_at(at, peers.named(at, setting.name)))


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Every peer, how it stands, and why."""
    with _service() as at:
        from broker import peers

        rows = [_row(at, each) for each in peers.known(at)]
    if as_json:
        return _lines(rows)
    shown = [
        [
            row["name"],
            row["title"],
            f"{row['weight']:g}",
            WORDS[row["condition"]],
            "" if row["quota"] is None else f"{row['total']} of {row['quota']}",
            row["why"],
        ]
        for row in rows
    ]
    return _table(
        ["name", "title", "weight", "", "in use", ""], shown, "No peer is known. `anybinder peers add` adds one."
    )


@app.command()
def check(peer: Annotated[str | None, typer.Argument(metavar="PEER")] = None) -> None:
    """Look at one peer, or all of them, now. Exits 1 where one is not well."""
    from broker import peers

    with _service() as at:
        chosen = [peers.named(at, peer)] if peer else peers.known(at)
        well = [_checked(at, each) for each in chosen]
    if not all(well):
        raise typer.Exit(1)


@app.command()
def drain(peer: Name) -> None:
    """Send nothing new there. What runs there goes on."""
    _drain(peer, draining=True)
    say(f"Nothing new is sent to “{peer}”. `anybinder peers undrain {peer}` ends that.")


@app.command()
def undrain(peer: Name) -> None:
    """Send launches there again."""
    _drain(peer, draining=False)
    say(f"Launches are sent to “{peer}” again.")


@app.command()
def remove(peer: Name) -> None:
    """Forget this peer. What runs there is watched to its end."""
    from broker import peers

    with _service() as at:
        peers.remove(at, peer)
    say(f"“{peer}” is no peer any more.")


# --- within ---------------------------------------------------------------------------------------------------------


def _drain(name: str, *, draining: bool) -> None:
    from broker import peers

    with _service() as at:
        peers.drain(at, name, draining=draining)


def _checked(at: Service, each: peers.Known) -> bool:
    from broker import peers

    say(f"{each.peer.title} ({each.name}):")
    return _told(peers.look_at(at, each))


def _told(found: binderhub.Hub) -> bool:
    """What a look found, for a person; whether it is well."""
    if not found.seen.ok:
        say(f"  {found.seen.why}")
        return False
    room = "it does not say how much room it has"
    if found.seen.quota is not None:
        room = f"{found.seen.total} of {found.seen.quota} places are taken"
    say(f"  It answers: BinderHub {found.versions.get('binderhub', 'of an unknown version')}; {room}.")
    say(f"  Repositories from: {', '.join(found.providers) or 'it does not say'}.")
    return True


def _row(at: Service, each: peers.Known) -> dict[str, Any]:
    peer, standing = each.peer, each.standing
    return {
        "name": each.name,
        "title": peer.title,
        "url": peer.binder,
        "weight": peer.weight,
        "publishes": peer.publishes,
        "anonymous": peer.anonymous,
        "condition": str(each.condition(at.now())),
        "why": "" if standing.up and not standing.full_until else standing.why,
        "total": standing.total,
        "quota": standing.quota,
        "version": each.versions.get("binderhub"),
        "looked_at": standing.seen_at.isoformat() if standing.seen_at else None,
    }


def _name(url: str) -> str:
    made = re.sub(r"[^a-z0-9]+", "-", (urlsplit(url).netloc or url).lower()).strip("-")[:31]
    return made if made[:1].isalpha() else f"p{made}"[:31]


def _addresses(url: str, hub: str) -> dict[str, str]:
    """The hub is what stands before `/services/…`, as JupyterHub's own services are addressed."""
    before, found, _ = url.partition("/services/")
    if hub or found:
        return {"url": hub or before, "binder_url": url}
    return {"url": url}


def _setting(told: dict[str, Any]) -> Any:
    import pydantic

    from broker import settings
    from broker.cli.running import _in_words

    try:
        return settings.PeerSetting.model_validate(told)
    except pydantic.ValidationError as error:
        wrong = "; ".join(map(_in_words, error.errors(include_input=False)))
        give_up(f"That cannot be a peer: {wrong}.", 2)


@contextmanager
def _service() -> Iterator[Service]:
    from broker import errors, service
    from broker.cli.running import _settings

    at = service.build(_settings())
    try:
        yield at
    except errors.BrokerError as refusal:
        give_up(str(refusal))
    finally:
        at.close()
