"""A BinderHub as a client that believes little reads it: to `ready`, or to an end with a reason, within its limits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from federation import anybinder, binderhub, errors
from federation.binderhub import Life, Limits, Said, WayIn
from federation.peers import Peer
from tests.doubles.binderhub_double import BUILT, BinderHubDouble

QUICK = Limits(between=0.5, whole=3, line=20_000, total=200_000, lines=300)


@pytest.fixture
def hub() -> Iterator[BinderHubDouble]:
    with BinderHubDouble() as double:
        yield double


def peer(hub: BinderHubDouble, **more: Any) -> Peer:
    return Peer(name="peer", title="Peer", url=hub.url, **more)


def heard(hub: BinderHubDouble, token: str = "", limits: Limits = QUICK, **more: Any) -> list[Said]:
    """Every line of a launch there."""
    at = peer(hub, **more)

    async def read() -> list[Said]:
        async with binderhub.async_client() as client:
            url = binderhub.address(at, "gh/o/r/abc", 0)
            return [said async for said in binderhub.events(client, at, url, token, limits) if said is not None]

    return asyncio.run(read())


# --- how it is


def test_a_look_finds_its_versions_its_room_and_its_repository_hosts(hub: BinderHubDouble) -> None:
    with binderhub.client() as client:
        found = binderhub.look(client, peer(hub))
    assert (found.seen.ok, found.seen.total, found.seen.quota) == (True, 3, 100)
    assert found.versions["binderhub"] == "1.0.0"
    assert found.providers[:2] == ("gh", "gist")


@pytest.mark.parametrize(
    ("path", "answer", "said"),
    [
        ("/versions", (200, {"Content-Type": "text/html"}, b"<html>Sign in</html>"), "does not answer as a hub"),
        ("/versions", (302, {"Location": "https://elsewhere.example/"}, b""), "not known to be its own"),
        ("/versions", (302, {"Location": "/versions"}, b""), "one address to the next"),
        ("/versions", (200, {}, b"[" * 100_000), "does not answer as a hub"),
        ("/versions", (200, {}, b" " * 2_000_000), "longer than any hub's"),
        ("/health", (500, {}, b"{}"), "status 500"),
        ("/health", (200, {}, b'{"ok": true, "checks": [{"service": "X", "ok": false}]}'), "not well: X"),
    ],
)
def test_what_is_no_hub_is_ill_and_why_is_said(hub: BinderHubDouble, path: str, answer: Any, said: str) -> None:
    hub.answers[path] = answer
    with binderhub.client() as client:
        found = binderhub.look(client, peer(hub))
    assert not found.seen.ok
    assert said in found.seen.why


def test_a_hub_that_is_ill_says_so_and_one_without_a_list_of_hosts_is_a_hub(hub: BinderHubDouble) -> None:
    hub.well = False
    with binderhub.client() as client:
        assert "JupyterHub API" in binderhub.look(client, peer(hub)).seen.why
        hub.well, hub.quota = True, None
        hub.answers["/api/repoproviders"] = (404, {}, b"")
        found = binderhub.look(client, peer(hub))
    assert (found.seen.ok, found.seen.quota, found.providers) == (True, None, ())


def test_numbers_that_are_none_are_left_out(hub: BinderHubDouble) -> None:
    check = {"service": "Pod quota", "total_pods": -1, "quota": 10**40, "ok": True}
    hub.answers["/health"] = (200, {}, json.dumps({"ok": True, "checks": [check, "nonsense"]}).encode())
    with binderhub.client() as client:
        seen = binderhub.look(client, peer(hub)).seen
    assert (seen.ok, seen.total, seen.quota) == (True, None, None)


# --- a launch there


def test_a_launch_is_read_to_ready(hub: BinderHubDouble) -> None:
    lines = heard(hub)
    assert [said.phase for said in lines] == ["waiting", "fetching", "building", "built", "launching", "ready"]
    assert lines[2].message == "Step 1/2 : FROM buildpack-deps"
    assert lines[3].image == "registry/peer:abc"
    way_in = lines[-1].way_in
    assert way_in is not None
    assert (way_in.url, way_in.token) == (f"{hub.url}/user/o-r-00000001/", "t000000000000000000001")
    assert way_in.more["binder_persistent_request"] == "v2/gh/o/r/abc"
    assert hub.builds == ["gh/o/r/abc"]
    assert way_in.token not in repr(lines)


def test_lines_that_are_cut_anywhere_and_html_are_text(hub: BinderHubDouble) -> None:
    odd = [
        b"da",
        b'ta: {"phase": "BUILD',
        b'ING", "message": "<script>\\u0007x</script>\\n"}\r',
        b"\n\n",
        b":keepalive\n\n",
    ]
    hub.lines = [*odd, {"message": "no phase"}, {"phase": "unknown"}, {"phase": 7, "message": ["x"]}, "ready"]
    lines = heard(hub)
    assert (lines[0].phase, lines[0].message) == ("building", "<script>x</script>")
    assert [said.phase for said in lines[1:]] == ["", "", "", "ready"]


def test_how_long_a_stream_may_be_silent_is_ours_to_say_and_not_the_http_clients() -> None:
    assert binderhub.async_client().timeout.read is None
    assert Limits().between > 3 * 25, "a BinderHub says every 25 s that it is there"


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ([{"phase": "failed", "message": "Too many users on this BinderHub! Try again soon.\n"}], errors.Full),
        ([{"phase": "failed", "message": "Too many users running https://x! Try again soon.\n"}], errors.Full),
        ([{"phase": "failed", "message": "Could not resolve ref for gh:o/r/x."}], errors.Refused),
        ([{"phase": "failed", "message": "Forbidden", "status_code": 403}], errors.Refused),
        ([*BUILT[:3], "fail"], errors.BuildFailed),
        ([*BUILT[:5], {"phase": "failed", "message": "Internal error"}], errors.LaunchFailed),
        ([*BUILT[:3], "cut"], errors.Vanished),
        (list(BUILT[:5]), errors.Vanished),
        ([*BUILT[:2], "hang"], errors.Silent),
        ([*BUILT[:2], "ever"], errors.Silent),
        ([b"data: {]\n\n"], errors.NotBelieved),
        ([b"data: " + b"[" * 10_000 + b"\n\n"], errors.NotBelieved),
        ([b"data: " + b"x" * 10_000_000], errors.NotBelieved),
        ([b":" + b"x" * 1000 + b"\n"] * 1000, errors.NotBelieved),
        ([BUILT[2]] * 500, errors.NotBelieved),
        ([{"phase": "ready", "message": "here"}], errors.NotBelieved),
        ([{"phase": "ready", "url": "https://elsewhere.example/user/a/", "token": "t"}], errors.NotBelieved),
        ([{"phase": "ready", "url": "http://169.254.169.254/", "token": "t"}], errors.NotBelieved),
        ([{"phase": "ready", "url": "javascript:alert(1)", "token": "t"}], errors.NotBelieved),
    ],
)
def test_every_other_end_has_its_reason(hub: BinderHubDouble, lines: list[Any], kind: type[Exception]) -> None:
    hub.lines = lines
    with pytest.raises(errors.PeerError) as failed:
        heard(hub)
    assert type(failed.value) is kind
    assert str(failed.value).endswith((".", "!", "x", "Forbidden", "error"))


def test_a_command_that_failed_is_not_what_a_person_reads(hub: BinderHubDouble) -> None:
    said = "Error during build: Command '['docker', 'buildx',\n '/tmp/x']' returned non-zero exit status 1."
    hub.lines = [*BUILT[:3], {"phase": "failed", "message": said}]
    with pytest.raises(errors.BuildFailed, match=r"^The build failed there\.$"):
        heard(hub)


def test_who_is_asked_to_come_later_knows_when(hub: BinderHubDouble) -> None:
    hub.lines = [{"phase": "failed", "message": "Rate limit exceeded. Try again in 3600 seconds.", "status_code": 429}]
    with pytest.raises(errors.Full) as failed:
        heard(hub)
    assert failed.value.seconds == 3600


def test_a_page_instead_of_a_stream_is_not_believed(hub: BinderHubDouble) -> None:
    hub.answers["/build/gh/o/r/abc"] = (200, {"Content-Type": "text/html"}, b"<html>ready</html>")
    with pytest.raises(errors.NotBelieved):
        heard(hub)


def test_a_redirect_is_followed_to_its_own_origins_only_and_takes_no_token_along(hub: BinderHubDouble) -> None:
    with BinderHubDouble() as member:
        hub.answers["/build/gh/o/r/abc"] = (307, {"Location": f"{member.url}/build/gh/o/r/abc"}, b"")
        with pytest.raises(errors.NotBelieved):
            heard(hub, "a-token")
        assert member.asked == []
        lines = heard(hub, "a-token", origins=(member.url,))
        assert lines[-1].way_in is not None
        assert (hub.shown("/build"), member.shown("/build")) == (["token a-token"] * 2, [""])


def test_nobody_there_is_said(hub: BinderHubDouble) -> None:
    at = Peer(name="gone", title="Gone", url="http://127.0.0.1:9")
    hub.url = at.url
    with pytest.raises(errors.Vanished):
        heard(hub)


def test_a_shared_key_makes_the_build_token_that_federations_share(hub: BinderHubDouble) -> None:
    key = bytes(range(32))
    heard(hub, build_token_key=key)
    (asked,) = hub.builds
    token = asked.partition("?build_token=")[2]
    claims = jwt.decode(token, OctKey.import_key(key), algorithms=["HS256"]).claims
    assert (claims["aud"], claims["origin"]) == ("gh/o/r/abc", hub.url.partition("://")[2])


# --- a session there


def test_a_session_is_alive_until_it_is_shut_down(hub: BinderHubDouble) -> None:
    path, token = hub.started()
    url = f"{hub.url}{path}"
    with binderhub.client() as client:
        assert binderhub.alive(client, url, token).life is Life.ALIVE
        assert binderhub.alive(client, url, "another").life is Life.GONE
        assert not binderhub.shut_down(client, url, "another")
        assert binderhub.shut_down(client, url, token)
        assert binderhub.alive(client, url, token).life is Life.GONE
        hub.answers[f"{path}api/status"] = (503, {}, b"")
        assert binderhub.alive(client, url, token).life is Life.UNKNOWN
        hub.answers[f"{path}api/status"] = (200, {"Content-Type": "text/html"}, b"<html>Sign in</html>")
        assert binderhub.alive(client, url, token).life is Life.GONE


def test_a_session_is_ended_at_the_hub_by_the_persons_token(hub: BinderHubDouble) -> None:
    hub.tokens["ada"] = "ada"
    path, _ = hub.started()
    with binderhub.client() as client:
        assert not binderhub.end_at_hub(client, peer(hub), f"{hub.url}{path}", "another")
        assert binderhub.end_at_hub(client, peer(hub), f"{hub.url}{path}", "ada")
    assert hub.sessions == {}


# --- another Anybinder


def test_a_launch_of_an_anybinder_is_asked_for_by_its_name_and_stopped(hub: BinderHubDouble) -> None:
    way_in = WayIn(url=f"{hub.url}/s/x/", token="t", more={"launch": "abcdefghijkl"})
    launch = anybinder.launch_of(way_in)
    assert anybinder.launch_of(WayIn(url="", token="", more={"launch": "../hub"})) == ""
    hub.launches[launch] = "ready"
    with binderhub.client() as at:
        assert anybinder.alive(at, peer(hub), launch, "t").life is Life.ALIVE
        assert anybinder.end(at, peer(hub), launch, "t")
        assert anybinder.alive(at, peer(hub), launch, "t").life is Life.GONE
        assert anybinder.alive(at, peer(hub), "mnopqrstuvwx", "t").life is Life.GONE
    assert hub.shown("/api/launches/") == ["token t"] * 4
