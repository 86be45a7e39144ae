"""Another Anybinder, in what it tells beyond a BinderHub: its launches have names, and can be looked at and stopped by their
token. A session there need not be a Jupyter server, and its hub is not kept busy by being asked."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from federation import binderhub
from federation.binderhub import Life, Session, WayIn
from federation.peers import Peer

NAME = re.compile(r"[a-z2-7]{12}")
OVER = "stopped"


def launch_of(way_in: WayIn) -> str:
    """What that hub calls the launch; empty where it is no Anybinder."""
    name = way_in.more.get("launch", "")
    return name if NAME.fullmatch(name) else ""


def alive(at: httpx.Client, peer: Peer, launch: str, token: str) -> Session:
    """Ask the hub whether its launch is there. Raises nothing."""
    answer = binderhub.asked(at, "GET", _address(peer, launch), token)
    if answer is None or answer[0] >= 500:
        return Session(life=Life.UNKNOWN)
    status, body = answer
    try:
        said = json.loads(body) if status == 200 else {}
        over = said.get("state", OVER) == OVER
        return Session(
            life=Life.GONE if over else Life.ALIVE, last_activity=binderhub.instant(said.get("last_activity_at"))
        )
    except (ValueError, RecursionError, AttributeError):
        return Session(life=Life.GONE)


def end(at: httpx.Client, peer: Peer, launch: str, token: str) -> bool:
    """Have the hub stop it; True where it will or has. Raises nothing."""
    answer = binderhub.asked(at, "DELETE", _address(peer, launch), token)
    return answer is not None and (200 <= answer[0] < 300 or answer[0] in (401, 403, 404))


@asynccontextmanager
async def archive(at: httpx.AsyncClient, peer: Peer, launch: str, token: str) -> AsyncIterator[httpx.Response]:
    """What the hub answers to who wants the files of this launch: a zip that is still coming, or none. Raises HTTPError."""
    headers = {"authorization": f"Bearer {token}", "accept": "application/zip", "accept-encoding": "identity"}
    asked = at.build_request("GET", f"{_address(peer, launch)}/archive", headers=headers)
    answer = await at.send(asked, stream=True)
    try:
        yield answer
    finally:
        await answer.aclose()


def _address(peer: Peer, launch: str) -> str:
    return f"{peer.binder}/api/launches/{launch}"
