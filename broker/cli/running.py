"""The commands that run a broker in this process. Imported only by them: this is where the weight is."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from typing import Any

import pydantic

from broker import backends, client, errors, home, logs, reaper, sealing, service, serving, settings
from broker.browser import open_page
from broker.cli import give_up, say
from providers import errors as clouds

IN_WORDS = {
    "extra_forbidden": "is no setting",
    "missing": "is needed",
    "tuple_type": "is a list: write it in [ ], with commas between",
}
"""What pydantic finds wrong with a setting, where its own words are for programmers."""


def up(*, port: int | None, browser: bool, while_needed: bool = False, ready_fd: int | None = None) -> None:
    """Serve until told to stop. Where a broker of this state folder runs already, open its page instead."""
    home.leave_no_core()
    chosen = _settings(port)
    try:
        with serving.owned(chosen.home):
            _serve(chosen, browser=browser, while_needed=while_needed, ready_fd=ready_fd)
    except serving.AlreadyRunning:
        _show_running(chosen, browser=browser, ready_fd=ready_fd)


def _settings(port: int | None = None) -> settings.Settings:
    """The settings in force. Ends with a sentence where one cannot be used."""
    try:
        chosen = settings.current()
        backends.check(chosen)
        sealing.check(chosen)
    except pydantic.ValidationError as error:
        wrong = "; ".join(map(_in_words, error.errors(include_input=False)))
        give_up(f"A setting cannot be used: {wrong}.", 2)
    except tomllib.TOMLDecodeError as error:
        give_up(f"{home.default_home() / 'config.toml'} is no TOML: {error}.", 2)
    except (errors.BrokerError, clouds.ProviderError) as error:
        give_up(f"A setting cannot be used: {error}", 2)
    return chosen if port is None else chosen.model_copy(update={"port": port})


def _in_words(wrong: Mapping[str, Any]) -> str:
    """What pydantic found, with the name of the setting."""
    where = ".".join(map(str, wrong["loc"]))
    what = IN_WORDS.get(wrong["type"]) or wrong["msg"].removeprefix("Value error, ").rstrip(".")
    return f"{where}: {what}" if where else what


def _serve(chosen: settings.Settings, *, browser: bool, while_needed: bool, ready_fd: int | None) -> None:
    try:
        listening, chosen = serving.bind(chosen)
    except OSError as error:
        if not while_needed:
            give_up(
                f"Port {chosen.port} cannot be listened on ({error.strerror}). Choose another with --port, or --port 0."
            )
        listening, chosen = serving.bind(chosen.model_copy(update={"port": 0}))

    def on_ready(at: service.Service, key: str) -> None:
        url = at.settings.public_url or f"http://localhost:{at.settings.port}"
        if ready_fd is not None:
            _tell(ready_fd)
        else:
            say(
                f"\n  Anybinder is running at {url}/?key={key}\n  The link signs one browser in, once. Ctrl-C ends it.\n"
            )
        if browser:
            open_page(chosen.home, f"{url}/?key={key}")

    serving.run(listening, chosen, on_ready=on_ready, while_needed=while_needed)


def _tell(descriptor: int) -> None:
    with os.fdopen(descriptor, "w") as pipe:
        json.dump({"ready": True}, pipe)


def _show_running(chosen: settings.Settings, *, browser: bool, ready_fd: int | None) -> None:
    if ready_fd is not None:
        return _tell(ready_fd)
    try:
        running = client.running(chosen.home)
    except client.NotRunning:
        give_up("A broker of this state folder is just starting or ending. Try again in a moment.")
    url = f"http://localhost:{running.port}/?key={running.call('POST', '/api/keys')['key']}"
    say(f"Anybinder is running already, at {url}")
    return open_page(chosen.home, url) if browser else None


def work(concurrency: int) -> None:
    """Run a Celery worker until told to stop."""
    home.leave_no_core()
    chosen = _settings()
    if not chosen.redis_url.get_secret_value():
        give_up("A worker needs ANYBINDER_REDIS_URL. Without Redis, `anybinder up` advances launches by itself.", 2)
    logs.configure(chosen)
    from broker import tasks

    worker = tasks.worker_app()
    worker.worker_main(["worker", "--beat", f"--concurrency={concurrency}", "--loglevel=WARNING", "--without-gossip"])


def migrate() -> None:
    """Bring the tables to this version."""
    chosen = _settings()
    settings.private_folder(chosen.home)
    service.build(chosen).close()
    say("The tables are up to date.")


def reap(*, dry_run: bool) -> list[dict[str, Any]]:
    """Sweep from this process, where no broker runs."""
    chosen = _settings()
    logs.configure(chosen)
    at = service.build(chosen)
    try:
        return reaper.report(at, reaper.sweep(at, dry_run=dry_run, everything=True))
    finally:
        at.close()
