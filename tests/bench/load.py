"""The load generator: the same for every way, in a process of its own.

`python -m tests.bench.load JOB` with JOB as JSON: port, host, cookie, kind (http, websocket, hold), path, connections,
seconds. Prints JSON: count, seconds, p50 and p99 in milliseconds, bytes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from array import array
from typing import Any

import uvloop

MESSAGE = b"\x82\xc0abcd" + b"m" * 64  # a masked binary frame of 64 bytes


def head(job: dict[str, Any]) -> bytes:
    """A request as a browser writes it."""
    lines = [
        f"GET {job['path']} HTTP/1.1",
        f"Host: {job['host']}",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Accept: application/json",
        "Accept-Language: en-US,en;q=0.5",
        "Accept-Encoding: gzip, deflate, br, zstd",
        f"Cookie: {job['cookie']}; _xsrf=2|5ae1f6bd|b2a3f7a4aa0d0a8c6c7b3c2c6e5f7b1d|1700000000",
        "Sec-Fetch-Dest: empty",
        "Sec-Fetch-Mode: cors",
        "Sec-Fetch-Site: same-origin",
    ]
    if job["kind"] != "http":
        key = "dGhlIHNhbXBsZSBub25jZQ=="
        lines += ["Connection: Upgrade", "Upgrade: websocket", f"Origin: http://{job['host']}"]
        lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Client(asyncio.Protocol):
    """One connection: sends, waits for the whole answer, sends again. An answer's length is learned from the first."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: Any = None
        self._left = 0
        self._since = 0.0
        self._first = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._load.head)

    def data_received(self, data: bytes) -> None:
        if not self._left:
            self._first += data
            if not self._load.begin(self._first):
                return
            self._left = self._load.length
            self._next()
            return
        self._left -= len(data)
        if self._left > 0:
            return
        if self._left < 0:
            raise RuntimeError("more came than was asked for")
        now = time.perf_counter()
        self._load.times.append(now - self._since)
        if now < self._load.end:
            self._next()
        else:
            self._load.finished()

    def _next(self) -> None:
        self._left = self._load.length
        self._since = time.perf_counter()
        self._transport.write(self._load.message)

    def connection_lost(self, _fault: Exception | None) -> None:
        if time.perf_counter() < self._load.end:
            self._load.fail("the connection was closed")


class Load:
    """All connections of one job."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.head = head(job)
        self.kind = job["kind"]
        self.message = self.head if self.kind == "http" else MESSAGE
        self.length = len(MESSAGE)
        self.times = array("d")
        self.end = float("inf")
        self._job = job
        self._running = job["connections"]
        self._begun = 0
        self._done = asyncio.get_running_loop().create_future()

    def begin(self, first: bytes) -> bool:
        """The first answer of a connection is there. True once it is whole and well."""
        told, end, rest = first.partition(b"\r\n\r\n")
        if not end:
            return False
        status = int(told.split(b" ", 2)[1])
        if status != (200 if self.kind == "http" else 101):
            self.fail(f"status {status}: {first[:300]!r}")
        if self.kind == "http":
            body = next(int(line[15:]) for line in told.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            if len(rest) < body:
                return False
            self.length = len(first)
        self._begun += 1
        if self._begun == self._running:
            self.times = array("d")
            self._since = time.perf_counter()
            self.end = self._since + self._job["seconds"]
        return True

    def finished(self) -> None:
        self._running -= 1
        if not self._running and not self._done.done():
            self._done.set_result(time.perf_counter() - self._since)

    def fail(self, why: str) -> None:
        if not self._done.done():
            self._done.set_exception(RuntimeError(why))

    async def run(self) -> dict[str, float]:
        loop = asyncio.get_running_loop()
        for _ in range(self._running):
            await loop.create_connection(lambda: Client(self), "127.0.0.1", self._job["port"])
        seconds = await asyncio.wait_for(self._done, self._job["seconds"] + 20)
        times = sorted(self.times)
        return {
            "rate": len(times) / seconds,
            "p50": times[len(times) // 2] * 1000,
            "p99": times[int(len(times) * 0.99)] * 1000,
            "megabytes": len(times) * self.length / seconds / 1e6,
        }


async def hold(jobs: list[dict[str, Any]]) -> None:
    """Open one WebSocket for each job and keep it until stdin ends."""
    loop = asyncio.get_running_loop()
    opened = []
    for job in jobs:
        reader, writer = await asyncio.open_connection("127.0.0.1", job["port"])
        writer.write(head(job))
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        if b" 101 " not in answer[:14]:
            raise RuntimeError(answer[:300])
        opened.append(writer)
    print("held", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


async def main(job: Any) -> None:
    if isinstance(job, list):
        await hold(job)
    else:
        print(json.dumps(await Load(job).run()), flush=True)


if __name__ == "__main__":
    uvloop.run(main(json.loads(sys.stdin.readline())))
