"""The agent's side of the tunnel, as it runs on an instance: its own code, the standard library's event loop.

`python -m tests.bench.agents PORT SOCKET` reads the sessions from stdin as JSON; prints a line once they are dialled.
"""

from __future__ import annotations

import asyncio
import json
import sys

from broker import agent


async def main(port: str, path: str) -> None:
    told = json.loads(sys.stdin.readline())
    tunnels = [agent.Tunnel(f"http://127.0.0.1:{port}", one["id"], one["secret"], path) for one in told]
    running = [asyncio.ensure_future(tunnel.run()) for tunnel in tunnels]
    while not all(sum(stream.parked for stream in tunnel._streams) >= 4 for tunnel in tunnels):
        await asyncio.sleep(0.02)
    print("parked", flush=True)
    await asyncio.gather(*running)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
