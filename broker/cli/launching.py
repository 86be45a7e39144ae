"""`anybinder launch`: from a repository to an open browser, on the running broker or on one of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import typer

from broker import client
from broker.browser import open_page
from broker.cli import give_up, reached, say
from broker.home import default_home

STEPS = ("waiting", "fetching", "building", "launching", "ready")  # what a bar can show; the rest falls in between


def launch(wish: dict[str, Any], *, hub: str | None = None, browser: bool, as_json: bool) -> None:
    """Launch and follow. Exits 0 when ready (or, attached to a terminal, when it is over) and 1 when it failed."""
    at = _broker(hub, quiet=as_json)
    found = at.call("POST", "/api/launches", {key: value for key, value in wish.items() if value is not None})
    if as_json:
        raise typer.Exit(_as_json(at, found))
    try:
        _attend(at, found, browser=browser)
    except KeyboardInterrupt:
        _interrupted(at, found)


def _attend(at: client.Client, found: dict[str, Any], *, browser: bool) -> None:
    """Show it on its way, open it, and on a terminal stay until it is over."""
    if _show(at, found) is None:
        raise typer.Exit(1)
    _enter(at, found["id"], browser=browser)
    if sys.stdin.isatty() and sys.stderr.isatty():
        _stay(at, found)


def _broker(hub: str | None, *, quiet: bool) -> client.Client:
    if found := reached(hub, quiet=quiet):
        return found
    if not quiet:
        say("Starting a broker for as long as the launch lives.")
    return _start(default_home())


def _start(home: Any) -> client.Client:
    """A broker in a process of its own, so that leaving it running is possible. Returns once it answers."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    ear, mouth = os.pipe()
    command = [sys.executable, "-m", "broker.cli", "up", "--no-browser", "--while-needed", "--ready-fd", str(mouth)]
    with (home / "broker.log").open("ab") as log:
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(mouth,), start_new_session=True
        )
    os.close(mouth)
    with os.fdopen(ear) as pipe:
        said = pipe.read()
    if not said:
        last = (home / "broker.log").read_text(errors="replace").strip().splitlines()[-1:]
        give_up(f"The broker did not start: {' '.join(last)} (more in {home / 'broker.log'})")
    return client.running(home)


def _as_json(at: client.Client, found: dict[str, Any]) -> int:
    last: dict[str, Any] = {}
    for line in at.events(found["id"]):
        last = {**line, "launch": found["id"]}
        print(json.dumps(last), flush=True)
    if last.get("phase") in ("ready", "failed"):
        return 0 if last["phase"] == "ready" else 1
    # A launch that was over before we came: its outcome is not the last line of its stream.
    over = {"phase": "failed", "launch": found["id"], "message": at.find(found["id"])["message"]}
    print(json.dumps(over), flush=True)
    return 1


def _show(at: client.Client, found: dict[str, Any]) -> dict[str, Any] | None:
    """A progress bar on a terminal, plain lines elsewhere. The ready line, or None where it failed."""
    lines, own = at.events(found["id"]), bool(found.get("offer"))
    for line in _bar(found, lines) if sys.stderr.isatty() and not own else _plain(lines):
        if own and line["state"] == "starting":
            own = not _told_to_paste(at, found["id"])
        if line["phase"] == "ready":
            return line
        if line["phase"] == "failed" or line["state"] == "stopped":
            say(f"Failed: {line['message']}")
            return None
    return None


def _told_to_paste(at: client.Client, launch_id: str) -> bool:
    """The line for the shell of a server of their own, on standard output, where one is waited for."""
    line = at.call("GET", f"/api/launches/{launch_id}").get("paste")
    if line:
        print(line, flush=True)
    return bool(line)


def _plain(lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line["phase"] != "failed":
            say(f"{line['phase'] or line['state']:<10} {line['message'].rstrip()}")
        yield line


def _bar(found: dict[str, Any], lines: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.fields[phase]:<9}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(found["title"], total=len(STEPS) - 1, phase="waiting")
        for line in lines:
            phase = line["phase"] or "waiting"
            done = STEPS.index(phase) if phase in STEPS else None
            progress.update(task, completed=done, description=line["message"].strip()[:60], phase=phase)
            yield line


def _enter(at: client.Client, launch_id: str, *, browser: bool) -> None:
    found = at.call("GET", f"/api/launches/{launch_id}")
    say(f"Ready: {found['title']} at {found['commit'][:7]}, as “{found['name']}”.")
    print(f"{found['browser_url']}{'&' if '?' in found['browser_url'] else '?'}token={found['token']}", flush=True)
    if browser and at.hub:  # where the browser is signed in by itself
        open_page(default_home(), f"{at.hub}/launches/{launch_id}/open")
    elif browser:
        key = at.call("POST", "/api/keys")["key"]
        open_page(default_home(), f"http://localhost:{at.port}/launches/{launch_id}/open?key={key}")


def _stay(at: client.Client, found: dict[str, Any]) -> None:
    """Until the launch is over, or the person says otherwise."""
    say("Ctrl-C to stop it or to leave it running.")
    for line in at.events(found["id"], to_the_end=True):
        if line["state"] in ("stopping", "stopped"):
            say(line["message"])


def _interrupted(at: client.Client, found: dict[str, Any]) -> None:
    """Ask once whether to stop or to leave; a second Ctrl-C stops."""
    try:
        leave = sys.stdin.isatty() and _answer("\nStop it, or leave it running? [S/l] ").lower().startswith("l")
    except KeyboardInterrupt:
        leave = False
    if leave:
        say(f"Left running. `anybinder stop {found['name']}` ends it, and so does its time limit.")
        raise typer.Exit(0)
    say("Stopping.")
    at.call("DELETE", f"/api/launches/{found['id']}")
    for _line in at.events(found["id"], to_the_end=True):
        pass
    say("Nothing of it is left.")
    raise typer.Exit(130)


def _answer(question: str) -> str:
    """A line from the terminal; empty where it has ended.

    `input` is deaf to a Ctrl-C that comes after its question and before it waits; here each is heard.
    """
    near, far = os.pipe()
    os.set_blocking(far, False)
    before = signal.set_wakeup_fd(far)
    try:
        print(question, end="", file=sys.stderr, flush=True)
        if near in select.select([sys.stdin, near], [], [])[0]:
            raise KeyboardInterrupt
        return sys.stdin.readline().strip()
    finally:
        signal.set_wakeup_fd(before)
        os.close(near)
        os.close(far)
