"""A Keystone alone. Runs in OpenStack's own virtual environment: `python keystone_alone.py FOLDER PORT`.

On one port of this computer:

- `/v3` is a real Keystone on SQLite, made from nothing in FOLDER, as `identity.py` says;
- `/v2.1`, `/v2` and `/v2.0` are NOT Nova, Glance and Neutron but stand-ins that buy nothing. What is real is the
  keystonemiddleware before them, which lets tokens and access rules through or not as it does in front of a real Nova.
"""

from __future__ import annotations

import contextlib
import json
import socketserver
import sys
from pathlib import Path
from wsgiref import simple_server

sys.path.insert(0, str(Path(__file__).parent))  # `python -I` leaves it out

import identity
from identity import answer
from keystonemiddleware import auth_token

FOLDER, PORT = Path(sys.argv[1]), int(sys.argv[2])
PASSWORD = (FOLDER / "password").read_text()
HERE = f"http://127.0.0.1:{PORT}"
PUBLISHED = {
    "compute": f"{HERE}/v2.1",
    "image": HERE,
    "network": HERE,
}


class Services:
    """The stand-ins, each behind a keystonemiddleware of its own, told apart by the first word of the path."""

    def __init__(self, identity):
        self.identity = identity
        self.behind = {
            "v2.1": guarded("compute", compute),
            "v2": guarded("image", images),
            "v2.0": guarded("network", networks),
        }

    def __call__(self, environ, start_response):
        first = environ["PATH_INFO"].strip("/").partition("/")[0]
        return self.behind.get(first, self.identity)(environ, start_response)


def guarded(service_type, app):
    told = {
        "www_authenticate_uri": f"{HERE}/v3",
        "auth_type": "password",
        "auth_url": f"{HERE}/v3",
        "username": "admin",
        "password": PASSWORD,
        "project_name": "admin",
        "user_domain_id": "default",
        "project_domain_id": "default",
        "interface": "public",
        "service_type": service_type,
        "service_token_roles_required": True,
        "token_cache_time": -1,  # what was just revoked is refused at once
    }
    return auth_token.AuthProtocol(app, told)


def compute(environ, start_response):
    """Answers in the shape of Nova's published interface. Any role may look, `member` may buy, which is then refused."""
    roles = environ.get("HTTP_X_ROLES", "").split(",")
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix("/v2.1").rstrip("/")
    if method == "GET" and path in LOOKS:
        return answer(start_response, "200 OK", LOOKS[path])
    if method == "POST" and path == "/servers" and "member" not in roles:
        told = {
            "forbidden": {"code": 403, "message": "Policy doesn't allow os_compute_api:servers:create to be performed."}
        }
        return answer(start_response, "403 Forbidden", told)
    if method == "POST" and path == "/servers":
        told = {
            "forbidden": {"code": 403, "message": "Quota exceeded for instances: Requested 1, but already used 0 of 0"}
        }
        return answer(start_response, "403 Forbidden", told)
    return answer(start_response, "404 Not Found", {"itemNotFound": {"code": 404, "message": "Not here."}})


FLAVOR = {
    "id": "1",
    "name": "m1.tiny",
    "vcpus": 1,
    "ram": 512,
    "disk": 1,
    "OS-FLV-EXT-DATA:ephemeral": 0,
    "swap": "",
    "rxtx_factor": 1.0,
    "os-flavor-access:is_public": True,
    "OS-FLV-DISABLED:disabled": False,
    "links": [],
}
LOOKS = {
    "/servers": {"servers": []},
    "/servers/detail": {"servers": []},
    "/flavors/detail": {"flavors": [FLAVOR]},
    "/limits": {"limits": {"rate": [], "absolute": {"maxTotalInstances": 0, "totalInstancesUsed": 0}}},
}


def images(environ, start_response):
    return answer(start_response, "200 OK", {"images": [], "first": "/v2/images", "schema": "/v2/schemas/images"})


def networks(environ, start_response):
    return answer(start_response, "200 OK", {"networks": []})


class Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True
    address_family = socketserver.socket.AF_INET
    request_queue_size = 64


class Quiet(simple_server.WSGIRequestHandler):
    def log_request(self, code="-", size="-"):
        """Addresses hold ids; nothing of theirs is kept."""


def main():
    app = Services(identity.application(FOLDER, HERE, f"sqlite:///{FOLDER}/keystone.db"))
    with Server(("127.0.0.1", PORT), Quiet) as serving:
        serving.set_app(app)
        (FOLDER / "published.json").write_text(json.dumps(PUBLISHED))
        with contextlib.suppress(KeyboardInterrupt):
            serving.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
