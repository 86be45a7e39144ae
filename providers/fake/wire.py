"""How one asks the fake cloud: JSON over HTTP over a unix socket, a connection a question."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any


class Unreachable(Exception):
    """No answer came, or none that makes sense."""


class _UnixConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


def ask(
    path: str, question: str, body: Mapping[str, Any], *, token: str = "", seconds: float = 10
) -> tuple[int, dict[str, Any]]:
    """Status and answer. Raises Unreachable where none came within about these seconds."""
    connection = _UnixConnection(path, timeout=seconds)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Host": "fake"}
    try:
        connection.request("POST", question, json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as why:
        raise Unreachable(str(why) or type(why).__name__) from why
    finally:
        connection.close()
