"""Running a broker: one process that owns the port, and in the embedded size everything else as well."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from broker import app as application
from broker import backends, client, front, launches, logs, menus, reaper, service, sessions, settings, tasks
from broker.forwarding import rows, streams
from broker.home import write_private

FIRST_LAUNCH_SECONDS = 120  # a broker that was started for one launch waits this long for it
MENU_SECONDS = 1  # between two looks at what pages would like to know of clouds
LINGER_SECONDS = 5  # and this long after the last one
CLOSING_SECONDS = 3  # how long open requests may take to finish when the broker ends


class AlreadyRunning(Exception):
    """A broker of this state folder is running already."""


@contextlib.contextmanager
def owned(home: Path) -> Iterator[None]:
    """This state folder, ours alone until the end. Raises AlreadyRunning."""
    settings.private_folder(home)
    with (home / "broker.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning from None
        yield


def bind(chosen: settings.Settings) -> tuple[socket.socket, settings.Settings]:
    """The listening socket, and the settings with the port it got. Raises OSError where the port is taken."""
    family = socket.AF_INET6 if ":" in chosen.host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((chosen.host, chosen.port))
    listening.listen(1024)
    return listening, chosen.model_copy(update={"port": listening.getsockname()[1]})


def run(
    listening: socket.socket,
    chosen: settings.Settings,
    *,
    on_ready: Callable[[service.Service, str], None],
    while_needed: bool = False,
) -> None:
    """Serve until told to stop, in the process that owns the state folder. `on_ready` is given a sign-in key."""
    logs.configure(chosen)
    at = service.build(chosen)
    if not chosen.redis_url.get_secret_value():
        rows.release(at)
        launches.release_leases(at)  # nobody else can hold one: the state folder is ours
    server = build(at, while_needed=while_needed)
    door = server.config.app.state.door  # type: ignore[union-attr]
    address = chosen.home / client.ADDRESS_FILE
    found_at = {"host": _reached(chosen), "port": chosen.port, "key": door.bearer, "pid": os.getpid()}
    write_private(address, json.dumps(found_at))
    at.queue.start(tasks.all_of(at), tasks.every(chosen))
    server.config.app.state.on_ready = lambda: on_ready(at, door.new_key())  # type: ignore[union-attr]
    try:
        server.run(sockets=[listening])
    finally:
        address.unlink(missing_ok=True)
        at.close()


def build(at: service.Service, *, while_needed: bool = False) -> uvicorn.Server:
    """The server of this service: front, gateway and tunnel around the application."""
    directory = sessions.Directory(at)
    app = application.create(at)
    holder: list[uvicorn.Server] = []
    app.router.lifespan_context = functools.partial(_alongside, at=at, while_needed=while_needed, server=holder)
    doors = front.Doors(
        at.settings,
        directory,
        on_tunnel=functools.partial(_tunnelled, at),
        hosts=application.hosts(at.settings),
        trusted=at.settings.trusted_proxies,
        sockets=at.settings.runtime / "t",
    )
    app.state.doors, app.state.directory = doors, directory
    config = uvicorn.Config(
        app,
        http=doors.protocol,  # type: ignore[arg-type]
        ws="none",
        loop="uvloop",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=CLOSING_SECONDS,
    )
    holder.append(uvicorn.Server(config))
    return holder[0]


def _reached(chosen: settings.Settings) -> str:
    return "127.0.0.1" if chosen.host in ("0.0.0.0", "::", "localhost") else chosen.host  # noqa: S104


@contextlib.asynccontextmanager
async def _alongside(
    app: FastAPI, *, at: service.Service, while_needed: bool, server: list[uvicorn.Server]
) -> AsyncIterator[None]:
    """What runs on the loop beside the requests."""
    beside = (_note_activity(app, at), _announce(app, server), _fill_menus(at), streams.run(at))
    running = [asyncio.create_task(each) for each in beside]
    if while_needed:
        running.append(asyncio.create_task(_end_when_idle(at, server)))
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _announce(app: FastAPI, server: list[uvicorn.Server]) -> None:
    """Say that it runs once it does."""
    while not server[0].started:  # noqa: ASYNC110  uvicorn has no event for it
        await asyncio.sleep(0.005)
    await asyncio.to_thread(app.state.on_ready)
    await asyncio.to_thread(backends.look_outward, app.state.service)


async def _note_activity(app: FastAPI, at: service.Service) -> None:
    """Write down now and then when somebody last did something, as the gateway saw it; and look for ended sessions."""
    while True:
        await asyncio.sleep(at.settings.heartbeat_seconds)
        await asyncio.to_thread(app.state.directory.refresh)
        seen: dict[str, float] = app.state.doors.gateway.activity
        now = time.monotonic()
        if ago := {session_id: now - when for session_id, when in seen.items()}:
            seen.clear()
            await asyncio.to_thread(sessions.active, at, ago)


async def _fill_menus(at: service.Service) -> None:
    """Ask clouds for what pages would like to say of them."""
    while True:
        await asyncio.sleep(MENU_SECONDS)
        if at.menus_wanted:
            menus.begin(at)


async def _end_when_idle(at: service.Service, server: list[uvicorn.Server]) -> None:
    """A broker that was started for a launch ends after its last one."""
    patience = time.monotonic() + FIRST_LAUNCH_SECONDS
    while time.monotonic() < patience:
        await asyncio.sleep(1)
        if await asyncio.to_thread(reaper.unfinished, at):
            patience = time.monotonic() + LINGER_SECONDS
    server[0].should_exit = True


def _tunnelled(at: service.Service, session_id: str, up: bool) -> None:
    """A session's streams came or went. The table is written in a thread: the loop never waits for it."""
    if up:
        asyncio.get_running_loop().run_in_executor(None, sessions.tunnelled, at, session_id)
