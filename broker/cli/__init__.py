"""`anybinder`: thin. What talks to a running broker imports nothing but the standard library and Typer."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from broker import client, hubs
from broker.home import default_home

app = typer.Typer(
    help="Any repo, on any compute you may use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for scripts.")]
Name = Annotated[str, typer.Argument(metavar="LAUNCH", help="Id or name; `anybinder list` shows them.")]
Hub = Annotated[
    str | None,
    typer.Option(
        "--hub",
        metavar="URL",
        help="A hub you are logged in to; `local` is this computer. [default: the broker that runs here, else the hub of the "
        "last login]",
    ),
]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Open no browser.")]


def say(text: str = "") -> None:
    """To the person; standard output is for results."""
    print(text, file=sys.stderr, flush=True)


def give_up(sentence: str, code: int = 1) -> NoReturn:
    """End with a sentence."""
    say(f"anybinder: {sentence}")
    raise typer.Exit(code)


@contextmanager
def told() -> Iterator[None]:
    """Turn a refusal into its sentence and exit status 1."""
    try:
        yield
    except (client.Refused, client.NotRunning, hubs.BadAddress) as error:
        give_up(str(error) or "No broker is running here. Start one with `anybinder up`.")


def broker(hub: str | None = None) -> client.Client:
    """What a command speaks to; ends with a sentence where there is nothing."""
    return reached(hub) or give_up("No broker is running here. Start one with `anybinder up`.")


def reached(hub: str | None, *, quiet: bool = False) -> client.Client | None:
    """The hub that is named; without one the broker that runs here, else the hub of the last login. None where none is."""
    home = default_home()
    if hub not in (None, "local"):
        url = hubs.address(hub)
        found = hubs.find(home, url) or give_up(f"You are not logged in there. `anybinder login {url}` does it.")
        return client.elsewhere(url, found.token)
    with suppress(client.NotRunning):
        return client.running(home)
    known = hubs.known(home) if hub is None else []
    if known and not quiet:
        say(f"At {known[0].url}.")
    return client.elsewhere(known[0].url, known[0].token) if known else None


# --- running a broker -----------------------------------------------------------------------------------------------


@app.command()
def up(
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one. [default: 8000]")] = None,
    no_browser: NoBrowser = False,
    while_needed: Annotated[bool, typer.Option(hidden=True)] = False,
    ready_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run everything in one process, with the page at http://localhost:8000."""
    from broker.cli.running import up as run

    run(port=port, browser=not no_browser, while_needed=while_needed, ready_fd=ready_fd)


@app.command()
def serve(
    port: Annotated[int | None, typer.Option(help="Port to listen on. [default: 8000]")] = None,
) -> None:
    """Run the web process: pages, gateway and tunnel. With ANYBINDER_REDIS_URL, `worker` does the rest."""
    from broker.cli.running import up as run

    run(port=port, browser=False)


@app.command()
def worker(
    concurrency: Annotated[int, typer.Option(help="Processes that advance launches.")] = 2,
) -> None:
    """Run a Celery worker (production; needs ANYBINDER_REDIS_URL and ANYBINDER_DATABASE_URL)."""
    from broker.cli.running import work

    work(concurrency)


@app.command()
def migrate() -> None:
    """Bring the tables to this version. May be repeated."""
    from broker.cli.running import migrate as run

    run()


@app.command()
def reap(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be ended.")] = False,
    as_json: Json = False,
) -> None:
    """End what the clouds list under our tag and no launch wants.

    Every account is looked into, whether a broker runs or not. Exits 1 where something could not be asked or ended.
    """
    from broker.cli import reaping

    with told():
        reaping.reap(dry_run=dry_run, as_json=as_json)


# --- launching ------------------------------------------------------------------------------------------------------


@app.command()
def launch(
    repo: Annotated[str, typer.Argument(help="A repository's address as you would paste it, or gh/owner/name/ref.")],
    ref: Annotated[str | None, typer.Option(help="Branch, tag or commit. [default: the newest]")] = None,
    on: Annotated[str | None, typer.Option(metavar="BACKEND", help="Where to run; see `anybinder backends`.")] = None,
    path: Annotated[str | None, typer.Option(help="File to open, or a URL path beginning with /.")] = None,
    name: Annotated[str | None, typer.Option(help="The same name again reconnects instead of starting twice.")] = None,
    hours: Annotated[float | None, typer.Option(help="End it after so many hours.")] = None,
    size: Annotated[str | None, typer.Option(help="One of the hub's plain sizes, like small or medium.")] = None,
    cpu: Annotated[float | None, typer.Option(help="Processors it needs.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory it needs, like 4G or 512M.")] = None,
    disk: Annotated[str | None, typer.Option(help="Disk it needs, like 20G.")] = None,
    gpu: Annotated[int | None, typer.Option(help="GPUs it needs.")] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="SUM", help="The most it may cost: 2.50, or 500 SU for service units.")
    ] = None,
    prefer: Annotated[str | None, typer.Option(help="What to try first: price, or ready for the soonest.")] = None,
    spot: Annotated[bool, typer.Option("--spot", help="Take machines that the cloud may take away again.")] = False,
    hedge: Annotated[
        bool, typer.Option("--hedge", help="Order a second machine where the first takes longer than usual.")
    ] = False,
    or_on: Annotated[
        list[str] | None,
        typer.Option(metavar="BACKEND", help="Where else to go on to, where nothing is left. Repeatable."),
    ] = None,
    hub: Hub = None,
    no_browser: NoBrowser = False,
    as_json: Json = False,
) -> None:
    """Run a repository and enter it. Naming it here is consent to run it."""
    from broker.cli import launching

    wish = {"repo": repo, "ref": ref, "backend": on, "path": path, "name": name, "consent": True}
    wish |= {"hours": hours, "size": size, "cpu": cpu, "memory": memory, "disk": disk, "gpu": gpu}
    wish |= {
        "budget": budget,
        "prefer": prefer,
        "spot": spot or None,
        "hedge": hedge or None,
        "elsewhere": or_on or None,
    }
    with told():
        launching.launch(wish, hub=hub, browser=not no_browser and not as_json, as_json=as_json)


@app.command("list")
def list_(
    everyone: Annotated[bool, typer.Option(help="Those of visitors too, which links launched.")] = False,
    hub: Hub = None,
    as_json: Json = False,
) -> None:
    """My launches, newest first."""
    with told():
        found = broker(hub).call("GET", f"/api/launches?everyone={str(everyone).lower()}")
    if as_json:
        return _lines([{key: value for key, value in one.items() if key != "token"} for one in found])
    rows = [
        [
            one["id"],
            one["name"],
            *([one["person"]] if everyone else []),
            one["state"],
            one["backend"],
            one["created_at"][:16],
            one["title"],
        ]
        for one in found
    ]
    return _table(
        ["id", "name", *(["who"] if everyone else []), "state", "where", "asked for", "repository"],
        rows,
        "Nothing has been launched yet.",
    )


@app.command()
def logs(
    launch: Name,
    console: Annotated[bool, typer.Option("--console", help="What its machine wrote on its own console.")] = False,
    hub: Hub = None,
    as_json: Json = False,
) -> None:
    """Everything a launch has said so far."""
    with told():
        at = broker(hub)
        about = f"/api/launches/{at.find(launch)['id']}"
        if console:
            return print(at.call("GET", f"{about}/console")["text"])
        lines = at.call("GET", f"{about}/events")
    if as_json:
        return _lines(lines)
    for line in lines:
        print(f"{line['at'][11:19]}  {line['phase'] or line['state']:<10}  {line['message'].rstrip()}")
    return None


@app.command()
def phases(launch: Name, hub: Hub = None, as_json: Json = False) -> None:
    """How long each part of a launch took, from the cloud being asked to ready."""
    with told():
        at = broker(hub)
        marks = at.call("GET", f"/api/launches/{at.find(launch)['id']}/phases")
    if as_json:
        return _lines(marks)
    ends = [0.0, *(mark["seconds"] for mark in marks)]
    rows = [
        [mark["phase"], f"{mark['seconds'] - ends[at]:.1f}", f"{mark['seconds']:.1f}"] for at, mark in enumerate(marks)
    ]
    return _table(["phase", "seconds", "since asked"], rows, "Nothing has been bought for it yet.")


@app.command()
def stop(launch: Name, hub: Hub = None) -> None:
    """End a launch; returns when the cloud says that it is gone."""
    with told():
        at = broker(hub)
        found = at.find(launch)
        at.call("DELETE", f"/api/launches/{found['id']}")
        for line in at.events(found["id"], to_the_end=True):
            if line["state"] in ("stopping", "stopped"):
                say(line["message"])


@app.command()
def extend(
    launch: Name,
    hours: Annotated[float, typer.Argument(min=0, help="How much longer: 2, or 0.5 for half an hour.")],
    hub: Hub = None,
    as_json: Json = False,
) -> None:
    """Let a running session last so many hours longer, as far as its place and its machine allow."""
    with told():
        at = broker(hub)
        found = at.call("POST", f"/api/launches/{at.find(launch)['id']}/extend", {"hours": hours})
    if as_json:
        return _lines([{key: value for key, value in found.items() if key != "token"}])
    return say(f"“{found['name']}” may now last until {found['deadline_at'][:16].replace('T', ' ')} UTC.")


@app.command()
def download(
    launch: Name,
    to: Annotated[
        Path | None,
        typer.Option("--to", "-o", metavar="FILE", help="Where to, `-` for standard output. [default: REPO-DATE.zip]"),
    ] = None,
    hub: Hub = None,
) -> None:
    """Bring the files of a running session home as a zip, before they go with it."""
    from broker.cli import downloading

    with told():
        at = broker(hub)
        downloading.download(at, at.find(launch)["id"], to)


@app.command()
def backends(hub: Hub = None, as_json: Json = False) -> None:
    """Where things can run, and why not where they cannot."""
    with told():
        found = broker(hub).call("GET", "/api/backends")
    if as_json:
        return _lines(found)
    rows = [
        [one["name"], one["title"], _price(one["price_per_hour"], one["currency"]), one["closed"] or "open"]
        for one in found
    ]
    return _table(["name", "title", "price", ""], rows, "No backend is configured.")


def _price(price: str | None, currency: str) -> str:
    if price is None:
        return "unknown"
    return "free" if float(price) == 0 else f"from {price} {currency}/h"


def _lines(items: list[Any]) -> None:
    """One JSON object a line, to standard output."""
    for item in items:
        print(json.dumps(item))


def _table(titles: list[str], rows: list[list[str]], empty: str) -> None:
    """Columns to standard output; without rows a sentence to the person instead."""
    if not rows:
        say(empty)
        return
    widths = [max(len(row[column]) for row in [titles, *rows]) for column in range(len(titles))]
    for row in [titles, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


from broker.cli import account, images, keycloak, keys, peers, prices  # noqa: E402, F401 -- they use what is above

app.add_typer(images.app, name="images")
app.add_typer(keycloak.app, name="keycloak")
app.add_typer(keys.app, name="keys")
app.add_typer(peers.app, name="peers")
app.add_typer(prices.app, name="prices")
