"""The tiny session of the fake cloud's machines: a web server on `ANYBINDER_SOCKET` that answers like a Jupyter server.

Runs on the machine as a program of its own: `session.py [jupyter|app]`. `/echo` answers with what was asked.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time

STARTED = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
STATUS = {"started": STARTED, "last_activity": STARTED, "connections": 0, "kernels": 0}


def main(kind: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.environ["ANYBINDER_SOCKET"])  # noqa: TID251 - how a session is told where to listen
        server.listen(64)
        while True:
            threading.Thread(target=serve, args=(server.accept()[0], kind), daemon=True).start()


def serve(client: socket.socket, kind: str) -> None:
    with client, client.makefile("rwb") as stream, contextlib.suppress(OSError, ValueError):
        while head := stream.readline():
            method, path, _ = head.decode("latin-1").split(" ", 2)
            headers = read_headers(stream)
            body = stream.read(int(headers.get("content-length", 0)))
            status, kind_of_answer, answer = respond(kind, method, path, headers, body)
            start = f"HTTP/1.1 {status}\r\nContent-Type: {kind_of_answer}\r\nContent-Length: {len(answer)}\r\n\r\n"
            stream.write(start.encode() + (b"" if method == "HEAD" else answer))
            stream.flush()


def read_headers(stream) -> dict[str, str]:
    headers = {}
    while (line := stream.readline().decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return headers


def respond(kind: str, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[str, str, bytes]:
    route = path.partition("?")[0]
    if route.startswith("/api/") and kind == "jupyter":
        return respond_api(route, headers)
    if route == "/echo":
        said = {"method": method, "path": path, "headers": headers, "body": body.decode("latin-1")}
        return "200 OK", "application/json", json.dumps(said).encode()
    if route == "/":
        return "200 OK", "text/html", b"<!doctype html><title>A session</title><h1>A session of the fake cloud</h1>"
    return "404 Not Found", "text/plain", b"nothing here"


def respond_api(route: str, headers: dict[str, str]) -> tuple[str, str, bytes]:
    token = os.environ.get("JUPYTER_TOKEN", "")  # noqa: TID251 - how a session is told its token
    if headers.get("authorization", "").partition(" ")[2] != token:
        return "403 Forbidden", "application/json", b'{"message": "Forbidden"}'
    known = {"/api/status": STATUS, "/api/kernels": [], "/api/terminals": []}
    if route not in known:
        return "404 Not Found", "application/json", b'{"message": "Not found"}'
    return "200 OK", "application/json", json.dumps(known[route]).encode()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "jupyter")
