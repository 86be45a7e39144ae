"""A Keystone, and what stands in front of it. Runs in OpenStack's own virtual environment.

    app = identity.application(folder, "http://127.0.0.1:5000", "sqlite:///…")

It is made from nothing in `folder`, whose file `password` has the operator's password. Federated sign-in stands behind
`Guard`, which does what Apache's mod_auth_openidc does in front of a Keystone: it verifies the bearer token for real
(issuer's published keys over HTTP, signature, issuer, audience, times) and passes on who it is. `folder/trust.json` is read
at each sign-in: {identity provider: {"issuer": …, "audience": …}}.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request

import children
import jwt
from cryptography.fernet import Fernet
from keystone import server
from keystone.cmd import bootstrap
from keystone.common.sql import upgrades
from keystone.server import wsgi

REGION = "RegionOne"
IDENTITY_HEADERS = ("HTTP_OIDC_ISS", "HTTP_OIDC_SUB", "HTTP_OIDC_AUD", "REMOTE_USER")
CONFIGURATION = """
[DEFAULT]
use_stderr = true
default_log_levels = alembic=WARNING,keystone=WARNING,oslo=WARNING
[database]
connection = {connection}
sqlite_synchronous = false
[fernet_tokens]
key_repository = {folder}/fernet
[fernet_receipts]
key_repository = {folder}/receipts
[credential]
key_repository = {folder}/credentials
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


def application(folder, here, connection):
    """The application. Its table and keys are made where they are not there yet."""
    file = folder / "keystone.conf"
    file.write_text(CONFIGURATION.format(folder=folder, connection=connection))
    os.environ["OS_KEYSTONE_CONFIG_FILES"] = str(file)
    sys.argv = ["keystone"]
    if not (folder / "fernet").exists():
        children.done(begin, folder, here, file)  # one process can either begin a Keystone or serve it
    return Guard(wsgi.initialize_public_application(), folder)


def begin(folder, here, file):
    for name in ("fernet", "receipts", "credentials"):
        keys(folder / name)
    server.configure(config_files=[str(file)])
    upgrades.offline_sync_database_to_version()
    first = bootstrap.Bootstrapper()
    first.admin_username, first.admin_role_name, first.project_name = "admin", "admin", "admin"
    first.admin_password = (folder / "password").read_text()
    first.service_name, first.region_id = "keystone", REGION
    first.public_url = first.internal_url = f"{here}/v3"
    first.bootstrap()


def keys(repository):
    """As `keystone-manage fernet_setup` lays them: 0 is staged, 1 signs."""
    repository.mkdir(mode=0o700)
    for number in (0, 1):
        (repository / str(number)).write_bytes(Fernet.generate_key())


class Guard:
    """As mod_auth_openidc in front of a Keystone: nobody but it may say who is there."""

    def __init__(self, app, folder):
        self.app, self.folder = app, folder

    def __call__(self, environ, start_response):
        for name in IDENTITY_HEADERS:
            environ.pop(name, None)  # a header of the caller's must not look like ours
        words = environ["PATH_INFO"].strip("/").split("/")
        if words[:3] == ["v3", "OS-FEDERATION", "identity_providers"] and words[-1] == "auth":
            try:
                environ.update(verified(self.folder, words[3], environ.get("HTTP_AUTHORIZATION", "")))
            except (jwt.PyJWTError, KeyError, OSError) as refusal:
                told = f'Bearer error="invalid_token", error_description="{said(refusal)}"'
                return answer(start_response, "401 Unauthorized", {"error": "no"}, [("WWW-Authenticate", told)])
        return self.app(environ, start_response)


def verified(folder, idp, header):
    """What the token says of its bearer, once everything about it is proven."""
    trusted = json.loads((folder / "trust.json").read_text())[idp]
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


def answer(start_response, status, told, headers=()):
    body = json.dumps(told).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers])
    return [body]
