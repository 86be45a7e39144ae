"""OpenStack without a cloud: its configuration, its guide, and what is heard from addresses that misbehave.

What a cloud lets in and refuses is tried against a real Keystone, in tests/openstack.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from keystoneauth1 import access

from broker import connections, errors
from providers import base
from providers.errors import BadCredential, InvalidOrder, ProviderUnavailable
from providers.openstack import APPLICATION_CREDENTIAL, OIDC, OpenStackProvider, clouds, keystone, needs, services

ELSEWHERE = "https://cloud.example.org:5000/v3"
TRUST = base.Trust(
    issuer="https://hub.example.org",
    launch_subject="launch:abc",
    reap_subject="reap:abc",
    broker="b1b2b3b4",
    name="hub.example.org",
)
CONNECTION = base.Connection(kind="application_credential", settings={"id": "0" * 32}, secret="canary-of-a-secret")

# --- which cloud ----------------------------------------------------------------------------------------------------


def test_every_preset_says_where_it_is_where_that_was_read_and_when():
    import tomllib

    told = tomllib.loads(clouds.FILE.read_text())
    assert {"jetstream2", "rackspace-flex-sjc3", "rackspace-flex-dfw3", "rackspace-flex-iad3"} <= set(told)
    for name, cloud in told.items():
        assert set(cloud) - {"rates"} == {*clouds.WORDS, "config_drive", "notes", "source", "as_of"}, name
        assert cloud["source"] and isinstance(cloud["as_of"], dt.date)
        assert re.fullmatch(r"https://[a-z0-9.-]+(:\d+)?/v3", cloud["auth_url"]), name
        assert re.match(r"https://|$", cloud["credentials_page"]), name
        assert OpenStackProvider({"preset": name}).cloud.title == cloud["title"]


@pytest.mark.parametrize(
    ("configuration", "says"),
    [
        ({}, "set one of the two"),
        ({"preset": "jetstream2", "auth_url": ELSEWHERE}, "set one of the two"),
        ({"preset": "jetstream3"}, "There are: jetstream2, "),
        ({"auth_url": "http://cloud.example.org:5000/v3"}, "is the https address"),
        ({"auth_url": "https://me@cloud.example.org/v3"}, "is the https address"),
        ({"auth_url": "file:///etc/passwd"}, "is the https address"),
        ({"preset": "jetstream2", "ca_file": "/nonexistent.pem"}, "“ca_file” names /nonexistent.pem"),
    ],
)
def test_a_configuration_that_cannot_work_is_a_sentence(configuration, says):
    with pytest.raises(InvalidOrder, match=re.escape(says)):
        OpenStackProvider(configuration)


@pytest.mark.parametrize(
    "typed", ["https://cloud.example.org:5000", "https://cloud.example.org:5000/", ELSEWHERE, f"{ELSEWHERE}/"]
)
def test_the_version_is_added_where_the_operator_leaves_it_out(typed):
    assert OpenStackProvider({"auth_url": typed}).cloud.auth_url == ELSEWHERE


def test_a_person_types_no_address():
    fields = {field.name for kind in (OIDC, APPLICATION_CREDENTIAL) for field in kind.fields}
    assert fields == {"id", "secret", "ends", "reap_id", "project"}
    for kind in (OIDC, APPLICATION_CREDENTIAL):
        for field in kind.fields:
            with pytest.raises(errors.BadField):
                connections.read_fields(kind, {**typed(kind), field.name: "https://evil.example/ x"})


def typed(kind: base.Kind) -> dict[str, str]:
    return {field.name: field.example or "secret-of-the-cloud" for field in kind.fields}


@pytest.mark.parametrize("kind", [OIDC, APPLICATION_CREDENTIAL])
def test_the_examples_of_the_fields_fit_them(kind):
    assert connections.read_fields(kind, typed(kind))


# --- what is told ---------------------------------------------------------------------------------------------------


def test_the_guide_for_an_application_credential():
    guide = OpenStackProvider({"preset": "jetstream2"}).guide("application_credential", TRUST, {})
    assert len(guide.can) == len(guide.cannot) == 3 and guide.narrows and guide.revoke
    assert guide.link == "https://js2.jetstream-cloud.org/identity/application_credentials/"
    assert json.loads(guide.download["access-rules.json"]) == needs.rules()
    assert json.loads(guide.download["reap-access-rules.json"]) == needs.rules(purpose=base.Purpose.REAP)
    for words in ("anybinder-b1b2b3b4", "--restricted", '--expiration "$ends"', "--role member", "hub.example.org"):
        assert words in guide.script
    assert "without one lives for a day" in " ".join(guide.steps)


def test_what_cleans_up_may_start_nothing():
    rules = needs.rules(purpose=base.Purpose.REAP)
    assert not [each for each in rules if each["method"] == "POST" and not each["path"].endswith("/action")]
    assert {"service": "compute", "method": "DELETE", "path": "/v2.1/servers/{server_id}"} in rules


@pytest.mark.parametrize(("purpose", "used"), [(base.Purpose.LAUNCH, "0" * 32), (base.Purpose.REAP, "1" * 32)])
def test_of_two_credentials_each_purpose_signs_in_with_its_own(listener, purpose, used):
    heard = []

    def hears(request: BaseHTTPRequestHandler) -> None:
        heard.append(json.loads(request.rfile.read(int(request.headers["content-length"]))))
        reply(request, 401, b"{}")

    listener.answer = hears
    both = dataclasses.replace(
        CONNECTION, settings={**CONNECTION.settings, "reap_id": "1" * 32}, secret="launching reaping", purpose=purpose
    )
    with pytest.raises(BadCredential, match="refused"):
        listener.provider.sign_in(both, None)
    told = heard[0]["auth"]["identity"]["application_credential"]
    assert told == {"id": used, "secret": "launching" if purpose is base.Purpose.LAUNCH else "reaping"}


@pytest.mark.parametrize(("secret", "reap_id"), [("first second", ""), ("first", "1" * 32)])
def test_of_a_second_credential_both_halves_are_needed(secret, reap_id):
    half = dataclasses.replace(CONNECTION, settings={"id": "0" * 32, "reap_id": reap_id}, secret=secret)
    with pytest.raises(BadCredential, match="both needed"):
        OpenStackProvider({"auth_url": "http://127.0.0.1:1/v3"}).sign_in(half, None)


def test_the_guide_for_trust_without_a_key_is_for_the_clouds_operators():
    guide = OpenStackProvider({"auth_url": ELSEWHERE, "identity_provider": "hub"}).guide(
        "oidc", TRUST, {"project": "p1"}
    )
    assert "launch:abc" in guide.script and "reap:abc" in guide.script and "project p1" in guide.script
    with pytest.raises(InvalidOrder, match="takes no connection of the kind “oidc”"):
        OpenStackProvider({"auth_url": ELSEWHERE}).guide("oidc", TRUST, {})


def test_only_a_trusted_broker_sends_a_token_and_for_this_cloud_only():
    provider = OpenStackProvider({"auth_url": ELSEWHERE, "identity_provider": "hub"})
    about = {"backend": "cloud", "launch": "l1", "repo": "gh/o/private/HEAD"}
    told = provider.assertion(base.Connection(kind="oidc"), about)
    assert told == base.Assertion(audience=ELSEWHERE)  # Keystone could test nothing else of it
    assert provider.assertion(CONNECTION, about) is None
    with pytest.raises(BadCredential):
        OpenStackProvider({"auth_url": ELSEWHERE}).sign_in(base.Connection(kind="oidc"), "a token")


@pytest.mark.parametrize(
    ("pattern", "path", "covers"),
    [
        ("/v2.1/servers", "/v2.1/servers", True),
        ("/v2.1/servers", "/v2.1/servers/detail", False),
        ("/v2.1/servers/*", "/v2.1/servers/{server_id}", True),
        ("/v2.1/servers/{id}", "/v2.1/servers/detail", True),
        ("/v2.1/*", "/v2.1/servers/detail", False),
        ("/v2.1/**", "/v2.1/servers/detail", True),
        ("/v2.1/servers/**", "/v2.1/servers", False),
        ("/v2x1/servers", "/v2.1/servers", False),
    ],
)
def test_paths_of_access_rules(pattern, path, covers):
    wanted = {"service": "compute", "method": "GET", "path": path}
    assert needs.allows([{**wanted, "path": pattern}], wanted) is covers
    assert not needs.allows([{**wanted, "path": pattern, "method": "POST"}], wanted)


@pytest.mark.parametrize(
    ("service", "published", "asked"),
    [
        ("compute", "https://nova.example.org/v2.1", "https://nova.example.org/v2.1"),
        ("compute", "https://nova.example.org/v2.1/p1/", "https://nova.example.org/v2.1/p1"),
        ("compute", "https://cloud.example.org/compute", "https://cloud.example.org/compute/v2.1"),
        ("image", "https://glance.example.org", "https://glance.example.org/v2"),
        ("image", "https://glance.example.org/v2", "https://glance.example.org/v2"),
        ("network", "https://neutron.example.org:9696/", "https://neutron.example.org:9696/v2.0"),
    ],
)
def test_where_services_are_however_a_catalogue_writes_it(service, published, asked):
    endpoint = {"interface": "public", "region": "one", "region_id": "one", "url": published}
    told = {"token": {**TOKEN["token"], "catalog": [{"type": service, "name": service, "endpoints": [endpoint]}]}}
    with keystone.Cloudy(clouds.Cloud(auth_url=ELSEWHERE, region="one")) as cloudy:
        assert services.endpoint(cloudy, access.AccessInfoV3(told, "t"), service) == asked


# --- addresses that misbehave ---------------------------------------------------------------------------------------

Answer = Callable[[BaseHTTPRequestHandler], None]


class Listener:
    """Answers as it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: Answer = lambda request: reply(request, 500, b"{}")
        self.asked: list[tuple[str, dict[str, str]]] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.do_POST()

            def do_PATCH(self) -> None:
                self.do_POST()

            def do_DELETE(self) -> None:
                self.do_POST()

            def do_POST(self) -> None:
                listener.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                listener.answer(self)

            def log_message(self, *words: Any) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def provider(self) -> OpenStackProvider:
        return OpenStackProvider({"auth_url": f"{self.url}/v3"})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def reply(request: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    request.send_response(status)
    for name, value in {"content-length": str(len(body)), "content-type": "application/json", **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


@pytest.fixture
def other() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


TOKEN = {
    "token": {
        "methods": ["application_credential"],
        "user": {"id": "u1", "name": "ada", "domain": {"id": "default", "name": "Default"}},
        "project": {"id": "p1", "name": "paleo", "domain": {"id": "default", "name": "Default"}},
        "roles": [{"id": "r1", "name": "member"}],
        "catalog": [],
        "issued_at": "2026-11-21T12:00:00.000000Z",
        "expires_at": "2026-11-21T13:00:00.000000Z",
        "application_credential": {"id": "0" * 32, "name": "anybinder", "restricted": True},
    }
}


def lets_in(request: BaseHTTPRequestHandler) -> None:
    if request.path == "/v3/auth/tokens":
        reply(request, 201, json.dumps(TOKEN).encode(), X_Subject_Token="canary-of-a-token")
    else:
        reply(request, 200, b'{"application_credential": {"expires_at": "2027-01-02T03:04:05.000000"}}')


def test_nothing_that_lies_about_on_the_brokers_computer_is_used(listener, other, monkeypatch, tmp_path):
    """Were any of these read, the other would be asked, or the credential be another."""
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login root password {'x' * 8}\n")
    told = {"clouds": {"here": {"auth": {"auth_url": f"{other.url}/v3", "username": "root", "password": "x"}}}}
    (tmp_path / "clouds.yaml").write_text(json.dumps(told))
    monkeypatch.chdir(tmp_path)
    lying = {
        "HOME": str(tmp_path),
        "NETRC": str(tmp_path / ".netrc"),
        "HTTP_PROXY": other.url,
        "http_proxy": other.url,
        "ALL_PROXY": other.url,
        "OS_CLOUD": "here",
        "OS_CLIENT_CONFIG_FILE": str(tmp_path / "clouds.yaml"),
        "OS_AUTH_URL": f"{other.url}/v3",
        "OS_USERNAME": "root",
        "OS_PASSWORD": "x",
        "OS_TOKEN": "x",
        "REQUESTS_CA_BUNDLE": "/nonexistent",
    }
    for name, value in lying.items():
        monkeypatch.setenv(name, value)
    assert os.environ["OS_CLOUD"] == "here"
    listener.answer = lets_in
    found = listener.provider.sign_in(CONNECTION, None)
    assert found.who == "ada in the project paleo (member)"
    assert found.reaches == dt.datetime(2027, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    assert other.asked == []
    assert [path for path, _ in listener.asked] == [
        "/v3/auth/tokens",
        f"/v3/users/u1/application_credentials/{'0' * 32}",
    ]
    assert all("authorization" not in headers for _, headers in listener.asked)


def test_no_secret_is_shown_or_logged(listener, caplog):
    listener.answer = lets_in
    with caplog.at_level(logging.DEBUG):
        found = listener.provider.sign_in(CONNECTION, None)
        listener.provider.check(CONNECTION, found)
    assert found.secret["token"] == "canary-of-a-token"
    for words in (repr(found), repr(CONNECTION), caplog.text):
        assert "canary" not in words


CATALOGUE = [
    {"type": kind, "name": kind, "endpoints": [{"interface": "public", "region": "", "region_id": "", "url": kind}]}
    for kind in ("compute", "image")
]


@pytest.mark.parametrize(
    ("status", "works", "says"),
    [
        (200, True, ""),
        (302, None, "says neither yes nor no"),
        (403, False, "Your role in the project (member) may not do this"),
        (404, None, "says neither yes nor no"),
    ],
)
def test_what_services_may_answer_when_a_permission_is_tried(listener, status, works, says):
    tried = checked(listener, status)["compute GET /v2.1/limits"]
    assert tried.works is works and says in tried.fix


@pytest.mark.parametrize(
    ("status", "error"), [(401, BadCredential), (500, ProviderUnavailable), (429, ProviderUnavailable)]
)
def test_what_says_nothing_of_permissions_is_no_finding(listener, status, error):
    with pytest.raises(error):
        checked(listener, status)


def checked(listener: Listener, status: int) -> dict[str, base.Permission]:
    """What `check` finds where every service answers so."""
    published = json.loads(json.dumps(CATALOGUE).replace('"url": "', f'"url": "{listener.url}/'))
    told = {"token": {**TOKEN["token"], "catalog": published}}
    listener.answer = lambda request: reply(request, status, b"{}", location="/elsewhere")
    secret = {"token": "t", "told": json.dumps(told)}
    found = listener.provider.check(CONNECTION, base.Credential(who="ada", secret=secret))
    return {each.name.replace("/compute", "", 1): each for each in found}


def test_a_token_is_sent_to_no_service_without_encryption():
    endpoint = {"interface": "public", "region": "one", "region_id": "one", "url": "http://nova.example.org/v2.1"}
    told = {"token": {**TOKEN["token"], "catalog": [{"type": "compute", "name": "nova", "endpoints": [endpoint]}]}}
    credential = base.Credential(who="ada", secret={"token": "t", "told": json.dumps(told)})
    found = OpenStackProvider({"auth_url": ELSEWHERE}).check(CONNECTION, credential)
    tried = [each for each in found if each.name.startswith("compute ")]
    assert tried and all(each.works is False and "without encryption" in each.fix for each in tried)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(listener, other, status):
    listener.answer = lambda request: reply(request, status, b"", location=f"{other.url}/v3/auth/tokens")
    other.answer = lets_in
    with pytest.raises(ProviderUnavailable, match="is no Keystone"):
        listener.provider.sign_in(CONNECTION, None)
    assert other.asked == []


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (500, b"{}", "it answers 500"),
        (503, b"down", "it answers 503"),
        (429, b"{}", "it answers 429"),
        (404, b"<h1>nginx</h1>", "is no Keystone"),
        (200, b"<h1>welcome</h1>", "is no Keystone"),
        (201, b"[]", "is no Keystone"),
        (201, b'{"token": {}}', "is no Keystone"),
    ],
)
def test_what_is_no_answer_is_no_refusal(listener, status, body, says):
    listener.answer = lambda request: reply(request, status, body)
    with pytest.raises(ProviderUnavailable, match=says):
        listener.provider.sign_in(CONNECTION, None)


def test_a_cloud_that_hangs_is_given_up(listener, monkeypatch):
    assert 4 * keystone.REQUEST_SECONDS <= base.CALL_SECONDS  # two requests, each may connect and answer slowly
    monkeypatch.setattr(keystone, "REQUEST_SECONDS", 0.2)
    leave = threading.Event()
    listener.answer = lambda request: leave.wait(10) and None
    try:
        with pytest.raises(ProviderUnavailable, match="does not answer in time"):
            listener.provider.sign_in(CONNECTION, None)
    finally:
        leave.set()


def test_a_cloud_that_is_not_there(listener):
    provider = listener.provider
    listener.server.server_close()
    with pytest.raises(ProviderUnavailable, match=r"cannot be reached|in time"):
        provider.sign_in(CONNECTION, None)


def test_a_certificate_of_nobody(tmp_path: Path):
    import ssl

    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    made = Listener()
    made.server.socket = context.wrap_socket(made.server.socket, server_side=True)
    made.answer = lets_in
    address = {"auth_url": made.url.replace("http:", "https:") + "/v3"}
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    try:
        with pytest.raises(ProviderUnavailable, match="certificate"):
            OpenStackProvider(address).sign_in(CONNECTION, None)
        assert OpenStackProvider({**address, "ca_file": str(tmp_path / "ca.pem")}).sign_in(CONNECTION, None)
    finally:
        made.close()


def test_a_date_that_is_none():
    told = base.Connection(
        kind="application_credential", settings={"id": "0" * 32, "ends": "2027-02-31"}, secret="x" * 20
    )
    with pytest.raises(BadCredential, match="is no date"):
        OpenStackProvider({"auth_url": "http://127.0.0.1:1/v3"}).sign_in(told, None)


@pytest.mark.parametrize("written", ["2027-02-28T12:00:00", "2027-02-28T12:00Z", "2027-02-28 12:00:00.000000"])
def test_dates_as_clouds_and_people_write_them(written):
    assert keystone.when(written) == dt.datetime(2027, 2, 28, 12, tzinfo=dt.UTC)
