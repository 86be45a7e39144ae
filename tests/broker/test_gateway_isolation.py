"""Who may pass into a session, and that nothing of one session reaches the clients of another."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator

import pytest

from broker.gateway import auth, pages
from broker.sessions import inside
from tests.broker.doors import ALPHA, BETA, House, request, websocket_key


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with House(tmp_path_factory.mktemp("h")) as opened:
        opened.session(ALPHA)
        opened.session(BETA)
        yield opened


@pytest.fixture
def alpha(house: House):
    house.sessions[ALPHA].requests.clear()
    return house.sessions[ALPHA]


@pytest.fixture
def beta(house: House):
    house.sessions[BETA].requests.clear()
    return house.sessions[BETA]


PAGE = {"Accept": "text/html", "Sec_Fetch_Dest": "document", "Sec_Fetch_Mode": "navigate"}


# ---- tokens and cookies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["token", "Token", "Bearer", "bearer"])
def test_a_script_passes_with_the_launch_token_and_the_session_never_sees_it(house, alpha, kind):
    answer = house.get("/api", cookie=False, Authorization=f"{kind} {alpha.token}")
    assert (answer.status, answer.sent("authorization")) == (200, f"token server-token-of-{ALPHA}")
    answer = house.get(f"/api?a=1&token={alpha.token}&b=2", cookie=False, Accept="*/*")
    assert (answer.status, answer.json["target"]) == (200, "/api?a=1&b=2")
    assert alpha.token.encode() not in alpha.raw


def test_a_browser_with_the_token_gets_a_cookie_and_a_clean_address(house, alpha):
    answer = house.get(f"/lab?x=1&token={alpha.token}", cookie=False, **PAGE)
    assert answer.status == 303
    assert answer.header("location") == f"http://{house.host()}/lab?x=1"
    assert answer.header("referrer-policy") == "no-referrer"
    assert answer.header("cache-control") == "no-store"
    cookie, *rest = answer.header("set-cookie").split("; ")
    assert {"Path=/", "HttpOnly", "SameSite=Lax"} <= set(rest)
    assert not [part for part in rest if part.lower().startswith(("domain", "secure"))]
    assert house.get("/lab", cookie=False, Cookie=cookie, **PAGE).status == 200
    assert alpha.requests[-1].target == "/lab"


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example/x",
        "/\\evil.example",
        "/https://evil.example/x",
        "/../../x",
        "///evil.example",
        "/;@evil.example/",
    ],
)
def test_the_way_from_token_to_cookie_stays_on_the_session(house, alpha, path):
    location = house.get(f"{path}?token={alpha.token}", cookie=False, **PAGE).header("location")
    assert location == f"http://{house.host()}{path}"


@pytest.mark.parametrize(
    ("asked", "led"),
    [
        ("https://evil.example/x", "/"),
        ("//evil.example/x", "/"),
        ("\\\\evil.example", "/"),
        ("/\\evil.example", "/"),
        ("../../etc", "/etc"),
        ("/%2e%2e/x", "/x"),
        ("javascript:alert(1)", "/"),
        ("lab/tree/a b.ipynb?reset", "/lab/tree/a%20b.ipynb?reset"),
        ("/voila/x\r\nSet-Cookie: a=b", "/voila/xSet-Cookie:%20a=b"),
        ("", "/"),
    ],
)
def test_a_urlpath_leads_inside(asked, led):
    assert inside(asked) == led


def test_the_cookie_is_stripped_and_the_others_are_kept(house, alpha):
    house.get("/", cookie=False, Cookie=f"a=1; {house.cookie()}; anybinder=key; b=2; __Host-anybinder-session=x")
    assert alpha.requests[-1].header("cookie") == "a=1; b=2"


def test_a_cookie_that_another_session_tossed_in_locks_nobody_out(house, alpha):
    tossed = "anybinder-session=9999999999.AAAA"
    assert house.get("/", cookie=False, Cookie=f"{tossed}; {house.cookie()}").status == 200
    assert house.get("/", cookie=False, Cookie=f"{house.cookie()}; {tossed}; {tossed}").status == 200


@pytest.mark.parametrize("n", range(9))
def test_nobody_else_passes(house, alpha, beta, n):
    cookie = house.cookie()
    expired = auth._signature(house.directory.known[ALPHA], 1000000000).decode()
    name, _, value = cookie.partition("=")
    expiry, _, signature = value.partition(".")
    told = [
        {},
        {"Cookie": house.cookie(BETA)},
        {"Authorization": f"token {beta.token}"},
        {"Authorization": f"token {alpha.secret}"},
        {"Authorization": f"token server-token-of-{ALPHA}"},
        {"Cookie": f"{name}=1000000000.{expired}"},
        {"Cookie": f"{name}={int(expiry) + 1}.{signature}"},
        {"Cookie": f"{name}={expiry}."},
        {"Authorization": "token "},
    ][n]
    answer = house.get("/secret", cookie=False, Accept="text/html", **told)
    assert answer.status == 403
    assert not alpha.requests
    assert not beta.requests


def test_an_unknown_session_cannot_be_told_from_another_persons(house, alpha):
    unknown = house.get("/", session="zzzzzzzzzzzz", cookie=False, Accept="text/html")
    others = house.get("/", cookie=False, Accept="text/html")
    assert (unknown.status, unknown.head, unknown.body) == (others.status, others.head, others.body)


def test_a_stopped_launch_opens_to_nobody(house):
    stopped = house.session("dddddddddddd", tunnel=False)
    cookie = house.cookie(stopped.id)
    house.directory.change(stopped.id, state="gone")
    assert house.get("/", session=stopped.id, cookie=False, Authorization=f"token {stopped.token}").status in (403, 410)
    assert house.get(f"/?token={stopped.token}", session=stopped.id, cookie=False, **PAGE).status in (403, 410)
    assert house.get("/", session=stopped.id, cookie=False, Cookie=cookie, **PAGE).status == 410
    assert stopped.requests == []


def test_a_session_past_its_deadline_is_gone(house):
    late = house.session("eeeeeeeeeeee", tunnel=False, deadline=dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1))
    assert house.get("/", session=late.id, cookie=False, Authorization=f"token {late.token}").status == 410


def test_a_session_that_ends_cuts_its_connections(house):
    ending = house.session("ffffffffffff")
    told = {
        "Host": house.host(ending.id),
        "Cookie": house.cookie(ending.id),
        "Origin": f"http://{house.host(ending.id)}",
    }
    with house.client() as client, house.client() as other:
        client.send(request("GET", "/ws", {**told, "Connection": "Upgrade", "Upgrade": "websocket"}))
        assert client.head().status == 101
        other.send(request("GET", "/", told))
        assert other.answer().status == 200
        house.directory.change(ending.id, state="gone")
        assert client.rest() == b""
        other.send(request("GET", "/after", told))
        assert other.answer().status == 410
    assert "/after" not in [seen.target for seen in ending.requests]


def test_a_session_that_starts_says_so_and_comes_back_by_itself(house):
    starting = house.session("gggggggggggg", tunnel=False, state="starting")
    page = house.get("/", session=starting.id, **PAGE)
    assert (page.status, page.header("refresh")) == (503, "2")
    assert b"<title>Your session is starting" in page.body
    told = house.get("/api", session=starting.id, Accept="application/json")
    assert (told.status, told.header("retry-after")) == (503, "2")
    assert told.json["detail"]
    assert house.get("/", session=starting.id, cookie=False, **PAGE).status == 403


@pytest.mark.parametrize("said", [pages.STARTING, pages.LOST, pages.GONE, pages.FORBIDDEN, pages.UNREACHABLE])
def test_a_page_is_small_plain_and_readable_by_all(said):
    answer = pages.answer(said, as_html=True, home='https://binder.example/"><script>', sentence="<b>&")
    head, _, body = answer.decode().partition("\r\n\r\n")
    assert f"Content-Length: {len(body.encode())}\r\n" in head + "\r\n"
    assert "default-src 'none'" in head
    assert '<html lang="en">' in body
    for element in ("<title>", "<main>", "<h1>", "<a "):
        assert body.count(element) == 1
    assert "<script" not in body
    assert "<b>" not in body
    assert "prefers-color-scheme:dark" in body
    assert len(body) < 4000


# ---- other pages in the same browser ------------------------------------------------------------------------------

EVIL = "https://evil.example"
NEIGHBOUR = f"http://{BETA}.localhost"


def fetched(site: str, mode: str, dest: str) -> dict[str, str]:
    return {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": mode, "Sec_Fetch_Dest": dest}


SHAPES = {
    "a form's post": ("POST", {"Origin": EVIL, **fetched("cross-site", "navigate", "document")}),
    "a form's post, sandboxed": ("POST", {"Origin": "null", **fetched("cross-site", "navigate", "document")}),
    "a form's post, old browser": ("POST", {"Origin": EVIL}),
    "a fetch": ("GET", {"Origin": EVIL, **fetched("cross-site", "cors", "empty")}),
    "a fetch without cors": ("GET", fetched("cross-site", "no-cors", "empty")),
    "a neighbour's fetch": ("GET", {"Origin": NEIGHBOUR, **fetched("same-site", "cors", "empty")}),
    "a neighbour's image": ("GET", fetched("same-site", "no-cors", "image")),
    "an image": ("GET", fetched("cross-site", "no-cors", "image")),
    "a script": ("GET", fetched("same-site", "no-cors", "script")),
    "a frame": ("GET", fetched("cross-site", "navigate", "iframe")),
    "a neighbour's frame": ("GET", fetched("same-site", "navigate", "iframe")),
    "an EventSource": (
        "GET",
        {"Origin": EVIL, "Accept": "text/event-stream", **fetched("cross-site", "cors", "empty")},
    ),
    "a head": ("HEAD", fetched("cross-site", "no-cors", "empty")),
    "another port": ("GET", {"Origin": f"http://{ALPHA}.localhost:1", **fetched("same-site", "cors", "empty")}),
    "another scheme": ("GET", {"Origin": f"https://{ALPHA}.localhost"}),
    "the broker's page": ("POST", {"Origin": "http://localhost:8000", **fetched("same-site", "cors", "empty")}),
    "two origins": ("GET", {"Origin": f"{EVIL} http://{ALPHA}.localhost"}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_another_page_cannot_use_the_cookie(house, alpha, shape):
    method, told = SHAPES[shape]
    assert house.ask(method, "/api/contents", **told).status == 403
    assert not alpha.requests


@pytest.mark.parametrize(
    "told",
    [
        {"Origin": EVIL},
        {"Origin": NEIGHBOUR},
        {"Origin": "null"},
        {},
        {"Origin": f"http://{ALPHA}.localhost.evil.example"},
        {"Sec_Fetch_Site": "cross-site", "Origin": EVIL, "Sec_Fetch_Mode": "websocket", "Sec_Fetch_Dest": "websocket"},
    ],
)
def test_another_page_cannot_open_a_websocket(house, alpha, told):
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Key": websocket_key()}
    assert house.get("/ws", **upgrade, **told).status == 403
    assert not alpha.requests


@pytest.mark.parametrize("site", ["none", "same-origin", "same-site", "cross-site"])
def test_following_a_link_is_allowed(house, alpha, site):
    assert house.get("/lab", Sec_Fetch_Site=site, **PAGE).status == 200


def test_the_sessions_own_pages_are_allowed(house, alpha):
    own = {"Origin": f"http://{house.host()}", "Sec_Fetch_Site": "same-origin", "Sec_Fetch_Mode": "cors"}
    assert house.ask("POST", "/api", b"{}", **own).status == 200


# ---- hosts --------------------------------------------------------------------------------------------------------

WRONG_HOSTS = [
    ("evil.example", 421),
    ("evil.example:{port}", 421),
    ("127.0.0.1.evil.example:{port}", 421),
    ("localhost.evil.example", 421),
    ("127.0.0.1:1", 421),
    ("localhost", 421),
    ("[::1]:1", 421),
    ("0.0.0.0:{port}", 421),
    ("10.0.0.1:{port}", 421),
    ("aaaaaaaaaaaa.localhost.:{port}", 400),
    ("aaaaaaaaaaaa.evil.localhost:{port}", 421),
    ("x.aaaaaaaaaaaa.localhost:{port}", 421),
    ("user@aaaaaaaaaaaa.localhost:{port}", 400),
    ("user:pass@aaaaaaaaaaaa.localhost", 400),
    ("aaaaaaaaaaaa.localhost:{port}, localhost", 400),
    ("aaaaaaaaaaaa.localhost:", 400),
    ("aaaaaaaaaaaa.localhost:x", 400),
    ("aaaaaaaaaaaa.localhost/../x", 400),
    ("aaaaaaaaaaaa.localhost\\x", 400),
    ("aaaaaaaaaaaa。localhost", 400),
    ("aaaaaaaaaaaa.löcalhost", 400),
    ("", 400),
]


@pytest.mark.parametrize(("host", "status"), WRONG_HOSTS)
def test_a_host_that_is_not_served_is_refused(house, alpha, host, status):
    told = host.replace("{port}", str(house.port)).encode().decode("latin-1")
    with house.client() as client:
        client.send(request("GET", "/", {"Host": told, "Cookie": house.cookie()}))
        assert client.answer().status == status
        assert client.rest() == b""
    assert not alpha.requests
    assert not house.app_saw


@pytest.mark.parametrize(
    "host", ["AAAAAAAAAAAA.LocalHost:{port}", "aaaaaaaaaaaa.localhost", "aaaaaaaaaaaa.localhost:9"]
)
def test_the_same_host_written_otherwise_is_the_same_session(house, alpha, host):
    with house.client() as client:
        told = host.replace("{port}", str(house.port))
        client.send(request("GET", "/", {"Host": told, "Cookie": house.cookie()}))
        assert client.answer().json["session"] == ALPHA


@pytest.mark.parametrize(
    "lines", ["", "Host: {a}\r\nHost: {a}\r\n", "Host: {a}\r\nHost: {b}\r\n", "host: {b}\r\nHost: {a}\r\n"]
)
def test_a_request_names_its_host_once(house, alpha, beta, lines):
    told = lines.replace("{a}", house.host(ALPHA)).replace("{b}", house.host(BETA))
    with house.client() as client:
        client.send(f"GET / HTTP/1.1\r\n{told}Cookie: {house.cookie()}; {house.cookie(BETA)}\r\n\r\n".encode())
        assert client.answer().status == 400
    assert not alpha.requests
    assert not beta.requests


def test_one_connection_serves_many_sessions_without_mixing_them(house, alpha, beta):
    with house.client() as client:
        for n in range(12):
            one = (ALPHA, BETA)[n % 2]
            client.send(request("GET", f"/{n}", {"Host": house.host(one), "Cookie": house.cookie(one)}))
            assert client.answer().json["session"] == one
        client.send(request("GET", "/x", {"Host": house.host(BETA), "Cookie": house.cookie(ALPHA)}))
        assert client.answer().status == 403
    assert {seen.header("authorization") for seen in beta.requests} == {f"token server-token-of-{BETA}"}


# ---- the path URL -------------------------------------------------------------------------------------------------


def on_the_path(house, target="/", method="GET", **told):
    host = f"127.0.0.1:{house.port}"
    with house.client() as client:
        headers = {"Host": host, **{key.replace("_", "-"): value for key, value in told.items()}}
        client.send(request(method, f"/s/{ALPHA}{target}", headers))
        return client.answer(method)


def test_a_script_without_names_uses_the_path(house, alpha):
    answer = on_the_path(house, "/api/kernels?x=1", Authorization=f"token {alpha.token}")
    assert (answer.status, answer.json["target"]) == (200, "/api/kernels?x=1")
    assert answer.header("content-security-policy") == "sandbox"
    assert on_the_path(house, f"/api?token={alpha.token}&y=2").json["target"] == "/api?y=2"


def test_the_path_takes_and_sets_no_cookie(house, alpha):
    assert on_the_path(house, "/", Cookie=house.cookie()).status == 403
    alpha.replies["/c"] = (
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nClear-Site-Data: *\r\nService-Worker-Allowed: /\r\n"
        b"Content-Security-Policy: default-src *\r\nContent-Length: 0\r\n\r\n"
    )
    answer = on_the_path(house, "/c", Authorization=f"token {alpha.token}", Cookie="anybinder=key; x=y")
    assert alpha.requests[-1].header("cookie") is None
    assert (
        answer.header("set-cookie")
        is answer.header("clear-site-data")
        is answer.header("service-worker-allowed")
        is None
    )
    assert "sandbox" in answer.header("content-security-policy").split(", ")
    assert on_the_path(house, f"/?token={alpha.token}", **PAGE).header("set-cookie") is None


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("/lab", "/s/aaaaaaaaaaaa/lab"),
        ("http://127.0.0.1:{port}/lab", "/s/aaaaaaaaaaaa/lab"),
        ("tree", "tree"),
        ("https://elsewhere.example/", "https://elsewhere.example/"),
    ],
)
def test_a_redirect_on_the_path_stays_there(house, alpha, said, seen):
    said = said.replace("{port}", str(house.port))
    alpha.replies["/r"] = f"HTTP/1.1 302 Found\r\nLocation: {said}\r\nContent-Length: 0\r\n\r\n".encode()
    assert on_the_path(house, "/r", Authorization=f"token {alpha.token}").header("location") == seen


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("/lab?", "/s/aaaaaaaaaaaa/lab?&token={token}"),
        ("/lab?a=1#part", "/s/aaaaaaaaaaaa/lab?a=1&token={token}#part"),
        ("/tree", "/s/aaaaaaaaaaaa/tree?token={token}"),
        ("https://elsewhere.example/x", "https://elsewhere.example/x"),
        ("//elsewhere.example/x", "//elsewhere.example/x"),
        ("/\\elsewhere.example/x", "/\\elsewhere.example/x"),
        ("/../bbbbbbbbbbbb/x", "/s/aaaaaaaaaaaa/../bbbbbbbbbbbb/x"),
        ("/a/%2e%2E/../b", "/s/aaaaaaaaaaaa/a/%2e%2E/../b"),
        ("/.\t./bbbbbbbbbbbb/x", "/s/aaaaaaaaaaaa/.\t./bbbbbbbbbbbb/x"),
        ("/..\\bbbbbbbbbbbb\\x", "/s/aaaaaaaaaaaa/..\\bbbbbbbbbbbb\\x"),
        ("/a..b?c=/../", "/s/aaaaaaaaaaaa/a..b?c=/../&token={token}"),
        ("lab", "lab"),
    ],
)
def test_a_token_in_the_address_goes_along_within_the_session_only(house, alpha, said, seen):
    """`requests.get(url + "?token=…")` follows Jupyter to its first page, as it does on a BinderHub, by a cookie there."""
    alpha.replies["/r"] = f"HTTP/1.1 302 Found\r\nLocation: {said}\r\nContent-Length: 0\r\n\r\n".encode()
    answer = on_the_path(house, f"/r?token={alpha.token}")
    assert answer.header("location") == seen.format(token=alpha.token)


@pytest.mark.parametrize("dest", ["script", "worker", "serviceworker", "iframe", "object"])
def test_nothing_on_the_path_runs_in_a_page(house, alpha, dest):
    told = {"Authorization": f"token {alpha.token}", "Sec_Fetch_Dest": dest, "Sec_Fetch_Site": "same-origin"}
    assert on_the_path(house, "/x.js", **told).status == 403


def test_the_path_belongs_to_127_0_0_1_alone(house, alpha):
    for host in (f"localhost:{house.port}", f"[::1]:{house.port}"):
        with house.client() as client:
            client.send(request("GET", f"/s/{ALPHA}/", {"Host": host, "Authorization": f"token {alpha.token}"}))
            assert client.answer().body == b"app"
    house.app_saw.clear()
    assert not alpha.requests


def test_a_script_uses_api_and_path_on_one_connection(house, alpha):
    host = {"Host": f"127.0.0.1:{house.port}", "Authorization": f"token {alpha.token}"}
    with house.client() as client:
        for n in range(6):
            client.send(request("GET", f"/api/{n}", host) + request("GET", f"/s/{ALPHA}/{n}", host))
            assert client.answer().body == b"app"
            assert client.answer().json["target"] == f"/{n}"
    house.app_saw.clear()


# ---- what a session sends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        ("a=b; Domain=localhost; Path=/", "a=b; Path=/"),
        ("a=b; domain=.localhost", "a=b"),
        ("a=b;DOMAIN = localhost;HttpOnly", "a=b;HttpOnly"),
        ("a=b; Domain=x; Domain=y; Secure", "a=b; Secure"),
        ("anybinder-session=x", None),
        (" anybinder-session =x; Domain=localhost", None),
        ("__Host-anybinder-session=x; Secure; Path=/", None),
        ("__HOST-Anybinder-Session=x", None),
        ("anybinder=x", None),
        ("=anybinder-session=x", None),
        ("nameless", None),
    ],
)
def test_a_session_sets_cookies_for_itself_only(house, alpha, said, seen):
    alpha.replies["/c"] = f"HTTP/1.1 200 OK\r\nSet-Cookie: {said}\r\nContent-Length: 0\r\n\r\n".encode()
    assert house.get("/c").header("set-cookie") == seen


def test_a_session_cannot_clear_what_its_neighbours_keep(house, alpha):
    alpha.replies["/c"] = b'HTTP/1.1 200 OK\r\nClear-Site-Data: "*"\r\nAlt-Svc: h2=":1"\r\nContent-Length: 0\r\n\r\n'
    answer = house.get("/c")
    assert answer.header("clear-site-data") is answer.header("alt-svc") is None


def test_no_secret_is_in_a_log_or_a_repr(house, alpha, caplog):
    caplog.set_level(logging.DEBUG)
    house.get(f"/?token={alpha.token}", cookie=False, **PAGE)
    house.get("/", cookie=False, Authorization=f"token {alpha.token}")
    session = house.directory.known[ALPHA]
    verdict = auth.Pass(target=b"/", cookie=b"secret-a", authorization=b"secret-b")
    told = caplog.text + repr(session) + repr(verdict) + repr(house.doors.tunnel) + repr(house.doors.gateway)
    for secret in (alpha.token, alpha.secret, session.server_token, house.cookie(), "secret-a", "secret-b"):
        assert secret not in told


def test_over_https_the_cookie_is_bound_to_its_host(tmp_path):
    served = {"public_url": "https://binder.example", "session_domain": "sessions.example"}
    with House(tmp_path, settings=served) as house:
        house.session(ALPHA, tunnel=False)
        with house.client() as client:
            token = house.sessions[ALPHA].token
            told = {"Host": f"{ALPHA}.sessions.example", "Accept": "text/html"}
            client.send(request("GET", f"/?token={token}", told))
            answer = client.answer()
            assert answer.header("location") == f"https://{ALPHA}.sessions.example/"
            assert answer.header("set-cookie").startswith("__Host-anybinder-session=")
            assert answer.header("set-cookie").endswith("; Secure")


def test_a_trusted_proxy_is_believed_and_nobody_else(tmp_path):
    with House(tmp_path, trusted=["127.0.0.1"]) as house:
        house.session(ALPHA)
        answer = house.get("/", X_Forwarded_For="192.0.2.1", X_Forwarded_Proto="https", X_Forwarded_Host="evil")
        assert answer.sent("x-forwarded-for") == "192.0.2.1, 127.0.0.1"
        assert answer.sent("x-forwarded-proto") == "https"
        assert answer.sent("x-forwarded-host") == house.host()
