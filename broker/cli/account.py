"""`anybinder login`, `logout`, `whoami`, `tokens`: the command line against a hub. Standard library and Typer."""

from __future__ import annotations

import contextlib
import platform
import sys
import threading
import time
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from broker import client, hubs
from broker.browser import open_page
from broker.cli import Hub, Json, NoBrowser, _lines, _table, app, broker, give_up, say, told
from broker.home import default_home

Url = Annotated[str | None, typer.Argument(metavar="[URL]", help="The hub. [default: the one of the last login]")]
GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SLOWER_SECONDS = 5  # RFC 8628, 3.5
SLOWEST_SECONDS = 30


@app.command()
def login(url: Url = None, no_browser: NoBrowser = False) -> None:
    """Sign this command line in to a hub, by a code that you type in a browser there."""
    with told():
        address = _address(url)
        before = hubs.find(default_home(), address)
        at = client.elsewhere(address)
        begun = at.form("/api/device", {"name": platform.node(), "scope": "read launch", "client_id": "anybinder"})
        _show(begun, browser=not no_browser)
        try:
            got = _wait(at, begun)
        except KeyboardInterrupt:
            give_up("Not logged in.", 130)
        _kept(address, got)
        if before:
            _revoke(before)


@app.command()
def logout(url: Url = None) -> None:
    """Sign this command line out of a hub: its token opens nothing from then on."""
    with told():
        hub = hubs.find(default_home(), _address(url))
        if hub is None:
            give_up("You are not logged in there.")
        revoked = _revoke(hub)
        hubs.forget(default_home(), hub.url)
    if revoked:
        say(f"Logged out of {hub.url}.")
        return
    give_up(
        f"Forgotten here, but {hub.url} does not answer: the token is good there until it ends. Revoke it at {hub.url}/account."
    )


@app.command()
def whoami(hub: Hub = None, as_json: Json = False) -> None:
    """Who I am, and where."""
    with told():
        at = broker(hub)
        me = at.call("GET", "/api/me")
    if as_json:
        return _lines([{**me, "hub": at.hub or f"http://localhost:{at.port}"}])
    return print(f"{me['name'] or me['id']} at {at.hub or f'http://localhost:{at.port}, this computer'}")


@app.command()
def tokens(
    revoke: Annotated[str | None, typer.Option(metavar="ID", help="Revoke this one. From a hub only its own.")] = None,
    hub: Hub = None,
    as_json: Json = False,
) -> None:
    """My API tokens; new ones are made on the page “Account”."""
    with told():
        at = broker(hub)
        if revoke:
            at.call("DELETE", f"/api/tokens/{revoke}")
            return say("Revoked.")
        found = at.call("GET", "/api/tokens")
    if as_json:
        return _lines(found)
    rows = [
        [one["id"], one["name"], " ".join(one["scopes"]), (one["used_at"] or "never")[:16], one["ends_at"][:10]]
        for one in found
    ]
    return _table(["id", "name", "may", "last used", "ends"], rows, "You have no tokens.")


def _address(url: str | None) -> str:
    """The hub that is meant. Ends with a sentence where none is."""
    if url:
        return hubs.address(url)
    known = hubs.known(default_home())
    return known[0].url if known else give_up("Say which hub, like `anybinder login https://hub.example`.", 2)


def _show(begun: dict[str, Any], *, browser: bool) -> None:
    page = str(begun["verification_uri"])
    say(f"\n  Open  {page}\n  Type  {begun['user_code']}\n")
    if browser and urlsplit(page).scheme in ("http", "https"):
        home = default_home()
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        open_page(home, page)


def _wait(at: client.Client, begun: dict[str, Any]) -> dict[str, Any]:
    """Until the person has decided. Raises Refused."""
    wait, until = float(begun.get("interval", 5)), time.monotonic() + begun["expires_in"]
    with _waiting(begun["expires_in"]):
        while True:
            threading.Event().wait(wait)
            try:
                got: dict[str, Any] = at.form(
                    "/api/device/token",
                    {"grant_type": GRANT, "device_code": begun["device_code"], "client_id": "anybinder"},
                )
                return got
            except client.Refused as refusal:
                if refusal.reason not in ("authorization_pending", "slow_down"):
                    raise
                wait += SLOWER_SECONDS if refusal.reason == "slow_down" else 0
            except client.Unreachable:
                if time.monotonic() > until:
                    raise
                wait = min(2 * wait, SLOWEST_SECONDS)


@contextlib.contextmanager
def _waiting(seconds: float) -> Iterator[None]:
    """Something that moves, on a terminal; a line elsewhere."""
    line = f"Waiting for you to let it in, for {seconds / 60:.0f} minutes at most. Ctrl-C to give up."
    if not sys.stderr.isatty():
        say(line)
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(line):
        yield


def _kept(address: str, got: dict[str, Any]) -> None:
    """Remember the token, and say whose it is."""
    me = client.elsewhere(address, got["access_token"]).call("GET", "/api/me")
    name = me["name"] or me["id"]
    fresh = hubs.Hub(url=address, token=got["access_token"], token_id=got["token_id"], name=name)
    hubs.keep(default_home(), fresh)
    days = got["expires_in"] / 86400
    say(f"Logged in to {address} as {name}, for {days:.0f} days. `anybinder logout` ends it.")


def _revoke(hub: hubs.Hub) -> bool:
    """Whether it opens nothing any more."""
    try:
        client.elsewhere(hub.url, hub.token).call("DELETE", f"/api/tokens/{hub.token_id}")
    except client.Refused as refusal:
        return refusal.status in (401, 404)  # it had ended, or somebody was faster
    except client.NotRunning:
        return False
    return True
