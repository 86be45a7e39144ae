"""Our front, gateway and tunnel as the broker runs them, around sessions that are made up.

`python -m tests.bench.ours COUNT` prints one line of JSON: the port, and each session's id, secret and cookie.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import json
import secrets
import socket
import sys
from typing import Any

import uvicorn

from broker import front, sessions, settings
from broker.gateway import auth


class Sessions:
    """The directory's interface, without a table."""

    def __init__(self, known: dict[str, sessions.Session]) -> None:
        self._known = known

    def get(self, session_id: str) -> sessions.Session | None:
        return self._known.get(session_id)

    def fresh(self, session_id: str) -> bool:
        return True

    async def load(self, session_id: str) -> sessions.Session | None:
        return self._known.get(session_id)


def session(secret: str) -> sessions.Session:
    return sessions.Session(
        id="".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(12)),
        state="ready",
        kind="jupyter",
        token_hash=hashlib.sha256(secrets.token_bytes(32)).digest(),
        secret_hash=hashlib.sha256(secret.encode()).digest(),
        server_token=secrets.token_urlsafe(),
        cookie_key=secrets.token_bytes(32),
        deadline=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1),
    )


async def nothing(scope: Any, _receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


def main(count: int) -> None:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(1024)
    port = listening.getsockname()[1]
    made = [(secret := secrets.token_urlsafe(), session(secret)) for _ in range(count)]
    doors = front.Doors(settings.Settings(port=port), Sessions({one.id: one for _, one in made}))
    told = [
        {"id": one.id, "secret": secret, "cookie": auth.issue_cookie(one, secure=False).decode().partition(";")[0]}
        for secret, one in made
    ]
    print(json.dumps({"port": port, "sessions": told}), flush=True)
    config = uvicorn.Config(
        nothing, http=doors.protocol, ws="none", loop="uvloop", lifespan="off", log_config=None, access_log=False
    )  # type: ignore[arg-type]
    asyncio.set_event_loop_policy(None)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main(int(sys.argv[1]))
