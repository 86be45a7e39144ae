"""Runs in the virtual environment of Keystone, not in ours: `python keystone_program.py FOLDER PORT`.

On one port of this computer:

- `/v3` is a real Keystone on SQLite, made from nothing in FOLDER;
- its federated sign-in stands behind `Guard`, which does what Apache's mod_auth_openidc does in front of a Keystone: it
  verifies the bearer token for real (issuer's published keys over HTTP, signature, issuer, audience, times) and passes on
  who it is. FOLDER/trust.json is read at each sign-in: {identity provider: {"issuer": …, "audience": …}};
- `/v2.1`, `/v2` and `/v2.0` are NOT Nova, Glance and Neutron but stand-ins that buy nothing. What is real is the
  keystonemiddleware before them, which lets tokens and access rules through or not as it does in front of a real Nova.
"""

from __future__ import annotations

import contextlib
import json
import os
import socketserver
import sys
import traceback
import urllib.request
from pathlib import Path
from wsgiref import simple_server

import jwt
from cryptography.fernet import Fernet
from keystone import server
from keystone.cmd import bootstrap
from keystone.common.sql import upgrades
from keystone.server import wsgi
from keystonemiddleware import auth_token

FOLDER, PORT = Path(sys.argv[1]), int(sys.argv[2])
PASSWORD = (FOLDER / "password").read_text()
HERE = f"http://127.0.0.1:{PORT}"
REGION = "RegionOne"
IDENTITY_HEADERS = ("HTTP_OIDC_ISS", "HTTP_OIDC_SUB", "HTTP_OIDC_AUD", "REMOTE_USER")
PUBLISHED = {
    "compute": f"{HERE}/v2.1",
    "image": HERE,
    "network": HERE,
}
CONFIGURATION = f"""
[DEFAULT]
use_stderr = true
default_log_levels = alembic=WARNING,keystone=WARNING,oslo=WARNING
[database]
connection = sqlite:///{FOLDER}/keystone.db
sqlite_synchronous = false
[fernet_tokens]
key_repository = {FOLDER}/fernet
[fernet_receipts]
key_repository = {FOLDER}/receipts
[credential]
key_repository = {FOLDER}/credentials
[auth]
methods = password,token,application_credential,openid,mapped
[federation]
remote_id_attribute = HTTP_OIDC_ISS
default_authorization_ttl = 60
[cache]
enabled = true
backend = dogpile.cache.memory
[identity]
# the fewest: nobody guesses here
password_hash_rounds = 4
"""


def keystone():
    """The application, over a table that has just been made."""
    file = FOLDER / "keystone.conf"
    file.write_text(CONFIGURATION)
    for name in ("fernet", "receipts", "credentials"):
        keys(FOLDER / name)
    os.environ["OS_KEYSTONE_CONFIG_FILES"] = str(file)
    sys.argv = ["keystone"]
    child = os.fork()  # one process can either begin a Keystone or serve it
    if child == 0:
        with ended():
            server.configure(config_files=[str(file)])
            upgrades.offline_sync_database_to_version()
            begin()
    if os.waitpid(child, 0)[1]:
        raise SystemExit("No Keystone could be begun, for the reason above.")
    return wsgi.initialize_public_application()


@contextlib.contextmanager
def ended():
    """This process ends here, and says how."""
    try:
        yield
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def keys(repository):
    """As `keystone-manage fernet_setup` lays them: 0 is staged, 1 signs."""
    repository.mkdir(mode=0o700)
    for number in (0, 1):
        (repository / str(number)).write_bytes(Fernet.generate_key())


def begin():
    first = bootstrap.Bootstrapper()
    first.admin_username, first.admin_password, first.admin_role_name = "admin", PASSWORD, "admin"
    first.project_name, first.service_name, first.region_id = "admin", "keystone", REGION
    first.public_url = first.internal_url = f"{HERE}/v3"
    first.bootstrap()


class Guard:
    """As mod_auth_openidc in front of a Keystone: nobody but it may say who is there."""

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        for name in IDENTITY_HEADERS:
            environ.pop(name, None)  # a header of the caller's must not look like ours
        words = environ["PATH_INFO"].strip("/").split("/")
        if words[:3] == ["v3", "OS-FEDERATION", "identity_providers"] and words[-1] == "auth":
            try:
                environ.update(verified(words[3], environ.get("HTTP_AUTHORIZATION", "")))
            except (jwt.PyJWTError, KeyError, OSError) as refusal:
                told = f'Bearer error="invalid_token", error_description="{said(refusal)}"'
                return answer(start_response, "401 Unauthorized", {"error": "no"}, [("WWW-Authenticate", told)])
        return self.app(environ, start_response)


def verified(idp, header):
    """What the token says of its bearer, once everything about it is proven."""
    trusted = json.loads((FOLDER / "trust.json").read_text())[idp]
    token = header.removeprefix("Bearer ")
    kid = jwt.get_unverified_header(token)["kid"]
    found = [key for key in published(trusted["issuer"]).keys if key.key_id == kid]
    if not found:
        raise jwt.PyJWTError("Signed with a key that its issuer does not publish")
    told = jwt.decode(
        token,
        found[0].key,
        algorithms=["RS256"],
        audience=trusted["audience"],
        issuer=trusted["issuer"],
        options={"require": ["exp", "iat", "sub", "aud", "iss"]},
    )
    return {"HTTP_OIDC_ISS": told["iss"], "HTTP_OIDC_SUB": told["sub"], "HTTP_OIDC_AUD": told["aud"]}


def published(issuer):
    """The issuer's keys, found as OpenID Connect Discovery says. Asked each time: mod_auth_openidc keeps them for an hour."""
    discovery = fetched(f"{issuer}/.well-known/openid-configuration")
    if discovery["issuer"] != issuer:
        raise jwt.PyJWTError("Its issuer says that it is another")
    return jwt.PyJWKSet.from_dict(fetched(discovery["jwks_uri"]))


def fetched(url):
    with urllib.request.urlopen(url, timeout=10) as response:  # the issuers of trust.json
        return json.load(response)


def said(refusal):
    return str(refusal).replace('"', "'").replace("\n", " ")[:200]


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


def answer(start_response, status, told, headers=()):
    body = json.dumps(told).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers])
    return [body]


class Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True
    address_family = socketserver.socket.AF_INET
    request_queue_size = 64


class Quiet(simple_server.WSGIRequestHandler):
    def log_request(self, code="-", size="-"):
        """Addresses hold ids; nothing of theirs is kept."""


def main():
    app = Services(Guard(keystone()))
    with Server(("127.0.0.1", PORT), Quiet) as serving:
        serving.set_app(app)
        (FOLDER / "published.json").write_text(json.dumps(PUBLISHED))
        with contextlib.suppress(KeyboardInterrupt):
            serving.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
