"""`anybinder keycloak`: setting Keycloak up as the hub of all ways to sign in. No broker needs to run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli import give_up, say

if TYPE_CHECKING:
    from broker.keycloak import Made, Wanted

app = typer.Typer(help="Set Keycloak up as the hub of all ways to sign in.", no_args_is_help=True)


@app.callback()
def _group() -> None:  # without it, Typer takes the one command for the whole group
    """Set Keycloak up as the hub of all ways to sign in."""


@app.command()
def init(
    server: Annotated[str, typer.Argument(metavar="KEYCLOAK", help="Its address, like https://sso.uni.example.")],
    broker: Annotated[
        str | None, typer.Option(help="The broker's own address. [default: public_url, or this computer's]")
    ] = None,
    realm: Annotated[str, typer.Option(help="The realm; made where it is missing.")] = "anybinder",
    client: Annotated[str, typer.Option(help="What the broker is called there.")] = "anybinder",
    name: Annotated[str, typer.Option(help="What the broker calls this Keycloak, in its addresses.")] = "keycloak",
    upstreams: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Client ids and secrets at GitHub, ORCID …; docs/signing-in.md.")
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the settings with the client's secret to this new file, mode 0600."),
    ] = None,
    show_secret: Annotated[bool, typer.Option("--show-secret", help="Print the client's secret too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be changed.")] = False,
) -> None:
    """Make realm, client, claims and identity providers in a running Keycloak, and print the settings that use them.

    The administrator's name and password are asked for, or read from ANYBINDER_KEYCLOAK_USER and ANYBINDER_KEYCLOAK_PASSWORD.
    It may be run again: it tells what it changed.
    """
    try:
        from broker import keycloak, keycloak_upstreams
    except ImportError:
        give_up("This needs python-keycloak: install anybinder[keycloak].", 2)
    from broker import errors

    user, password = _administrator()
    try:
        wanted = keycloak.Wanted(
            realm=realm,
            client=client,
            name=name,
            broker=(broker or _own_address()).rstrip("/"),
            upstreams=keycloak_upstreams.read(upstreams),
        )
        made = keycloak.init(keycloak.sign_in(server, user, password, realm), wanted, dry_run=dry_run)
    except errors.BrokerError as error:
        give_up(str(error))
    _tell(made, dry_run=dry_run)
    if into and not dry_run:
        _write(into, keycloak.as_toml(wanted, made, secret=True))
    _print(wanted, made, show_secret=show_secret and not dry_run)


def _administrator() -> tuple[str, str]:
    """From the environment, or asked for: words on a command line are for everybody on this computer to read."""
    from broker import settings

    told = settings.KeycloakAdministrator()
    if (not told.user or not told.password.get_secret_value()) and not sys.stdin.isatty():
        give_up("Set ANYBINDER_KEYCLOAK_USER and ANYBINDER_KEYCLOAK_PASSWORD: nobody is here to be asked.", 2)
    user = told.user or typer.prompt("Keycloak administrator", err=True)
    return user, told.password.get_secret_value() or typer.prompt("Password", hide_input=True, err=True)


def _own_address() -> str:
    from broker.cli.running import _settings

    return _settings().own_address


def _tell(made: Made, *, dry_run: bool) -> None:
    for change in made.changes:
        say(f"· {change}")
    if not made.changes:
        say("Nothing to change.")
    elif dry_run:
        say("That would be changed. Nothing was.")


def _write(path: Path, text: str) -> None:
    """For its owner only, from the first byte on."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{text}\n")
    except FileExistsError:
        give_up(f"{path} is there already, and is left as it is. Choose another name.")
    except OSError as error:
        give_up(f"{path} cannot be written ({error.strerror}).")
    say(f"Written to {path}, with the secret: add it to config.toml in the state folder.")


def _print(wanted: Wanted, made: Made, *, show_secret: bool) -> None:
    from broker import keycloak

    print(keycloak.as_toml(wanted, made, secret=show_secret))
