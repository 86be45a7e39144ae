"""What clouds tell a machine of itself at 169.254.169.254: EC2 with session tokens only (IMDSv2), and OpenStack.

A service answers one machine, on that machine's own wire. `asked` keeps what it was asked for, so that a test can say who
has read the user data.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ADDRESS = "169.254.169.254"
Answer = tuple[int, bytes]


class Service:
    """What is the same everywhere: it serves, and remembers."""

    datasource = ""
    """What cloud-init calls it."""
    environment: tuple[str, ...] = ()
    """What PID 1 is told, where that is how the datasource knows its cloud."""

    uuid = ""
    """What the hypervisor calls it, where the datasource asks that."""

    def __init__(self, id: str, user_data: str) -> None:
        self.id, self.user_data = id, user_data
        self.asked: list[tuple[str, str, int]] = []
        self.told_at = 0.0
        """When the user data was first read, in seconds since 1970."""
        self.port = 0

    def serve(self, address: str) -> None:
        """Answer at this address, on a free port."""
        self._server = ThreadingHTTPServer((address, 0), _handler(self))
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign,assignment]  # machines lose power
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def answer(self, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        raise NotImplementedError


class Ec2(Service):
    """The Instance Metadata Service of EC2, version 2: nothing without a token that a PUT has given."""

    datasource = "Ec2"
    uuid = "ec2e1916-9099-7caf-fd21-012345abcdef"

    def __init__(
        self, id: str, user_data: str, *, region: str = "eu-central-1", tags: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(id, user_data)
        self._tokens: set[str] = set()
        document = {"instanceId": id, "region": region, "accountId": "123456789012", "architecture": "x86_64"}
        self._tree: dict[str, str] = {
            "meta-data/ami-id": "ami-0123456789abcdef0",
            "meta-data/hostname": "machine.internal",
            "meta-data/instance-id": id,
            "meta-data/instance-type": "t3.small",
            "meta-data/local-hostname": "machine.internal",
            "meta-data/placement/availability-zone": f"{region}a",
            "meta-data/placement/region": region,
            "dynamic/instance-identity/document": json.dumps(document),
            "user-data": user_data,
        }
        self._tree |= {f"meta-data/tags/instance/{name}": value for name, value in (tags or {}).items()}

    def answer(self, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        if path == "/latest/api/token":
            return self._token(method, headers)
        if method != "GET":
            return 405, b""
        if headers.get("X-aws-ec2-metadata-token") not in self._tokens:
            return 401, b""
        version, _, rest = path.strip("/").partition("/")
        return self._found(rest) if version in ("latest", "2009-04-04", "2021-03-23") else (404, b"")

    def _token(self, method: str, headers: Mapping[str, str]) -> Answer:
        if method != "PUT" or not headers.get("X-aws-ec2-metadata-token-ttl-seconds", "").isdigit():
            return (405 if method != "PUT" else 400), b""
        if "X-Forwarded-For" in headers:  # an open proxy on the machine must not lead here
            return 403, b""
        token = secrets.token_urlsafe()
        self._tokens.add(token)
        return 200, token.encode()

    def _found(self, path: str) -> Answer:
        if path in self._tree:
            return 200, self._tree[path].encode()
        prefix = f"{path.strip('/')}/" if path.strip("/") else ""
        below = {name[len(prefix) :] for name in self._tree if name.startswith(prefix)}
        names = sorted({name if "/" not in name else f"{name.partition('/')[0]}/" for name in below})
        return (200, "\n".join(names).encode()) if names else (404, b"")


class OpenStack(Service):
    """Nova's: no token is asked for."""

    datasource = "OpenStack"
    environment = ("product_name=OpenStack Nova",)  # cloud-init looks for this of PID 1 where there is no DMI

    def __init__(
        self, id: str, user_data: str, *, meta: Mapping[str, str] | None = None, name: str = "machine"
    ) -> None:
        super().__init__(id, user_data)
        told: dict[str, Any] = {"uuid": id, "name": name, "hostname": name, "availability_zone": "nova"}
        self._files = {
            "meta_data.json": json.dumps({**told, "meta": dict(meta or {}), "launch_index": 0, "project_id": "p"}),
            "user_data": user_data,
            "network_data.json": json.dumps({"links": [], "networks": [], "services": []}),
            "vendor_data.json": "{}",
        }

    def answer(self, method: str, path: str, headers: Mapping[str, str]) -> Answer:
        top, _, rest = path.strip("/").partition("/")
        version, _, name = rest.partition("/")
        if method != "GET" or top != "openstack":
            return 404, b""
        if not version:
            return 200, b"2018-08-27\nlatest"
        if version not in ("2018-08-27", "latest"):
            return 404, b""
        if not name:
            return 200, "\n".join(self._files).encode()
        return (200, self._files[name].encode()) if name in self._files else (404, b"")


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, body = service.answer(self.command, self.path.partition("?")[0], self.headers)
            service.asked.append((self.command, self.path, status))
            if status == 200 and not service.told_at and self.path.endswith(("user-data", "user_data")):
                service.told_at = time.time()
            self.send_response(status)
            self.send_header("content-type", "text/plain")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_POST = do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args: Any) -> None:
            pass

    return Handler
