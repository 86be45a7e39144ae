"""Build tokens: what opens `/build` without the rate limit, and what does not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import OctKey

from broker import settings
from broker.web import tokens
from tests.broker.conftest import Bench, Clock

SPEC = "gh/owner/name/HEAD"
HOST = "localhost:8000"
SHARED = "ab" * 32


def issued(bench: Bench, **told: Any) -> str:
    return tokens.issue(bench.at, **{"spec": SPEC, "origin": HOST, **told})


def read(bench: Bench, token: str, **told: Any) -> tokens.BuildToken:
    return tokens.read(bench.at, token, **{"spec": SPEC, "origin": HOST, **told})


def forged(claims: dict[str, Any], secret: str = SHARED) -> str:
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(bytes.fromhex(secret)))


def claims(bench: Bench, **told: Any) -> dict[str, Any]:
    return {"exp": bench.clock().timestamp() + 300, "aud": SPEC, "origin": HOST, **told}


def test_a_token_is_binderhubs_own_jwt(bench: Bench) -> None:
    head, body, _ = issued(bench).split(".")
    said = json.loads(base64.urlsafe_b64decode(body + "=="))
    assert json.loads(base64.urlsafe_b64decode(head + "=="))["alg"] == "HS256"
    assert {name: said[name] for name in ("exp", "aud", "origin")} == {
        "exp": bench.clock().timestamp() + 300,
        "aud": SPEC,
        "origin": HOST,
    }


def test_the_same_token_is_for_the_same_launch(bench: Bench) -> None:
    token = issued(bench)
    assert read(bench, token) == read(bench, token)
    assert read(bench, token).launch_id != read(bench, issued(bench)).launch_id
    assert len(read(bench, token).launch_id or "") == 12


def test_a_token_says_whose_launch_it_is_where_and_which(bench: Bench) -> None:
    token = issued(bench, person="somebody", backend="desk", launch_id="abcdefghijkl")
    assert read(bench, token) == tokens.BuildToken(launch_id="abcdefghijkl", person="somebody", backend="desk")


@pytest.mark.parametrize("told", [{"spec": "gh/owner/other/HEAD"}, {"origin": "evil.example"}])
def test_a_token_of_something_else_is_refused(bench: Bench, told: dict[str, str]) -> None:
    with pytest.raises(tokens.BadToken, match="Invalid build token"):
        read(bench, issued(bench), **told)


def test_a_token_grows_old(bench: Bench, clock: Clock) -> None:
    token = issued(bench)
    clock.move(seconds=299)
    read(bench, token)
    clock.move(seconds=2)
    with pytest.raises(tokens.BadToken):
        read(bench, token)


def test_the_origin_may_be_left_unchecked(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(build_token_check_origin=False)
    assert read(bench, issued(bench), origin="elsewhere.example").launch_id


@pytest.mark.parametrize(
    "wrong",
    ["", "x", "a.b.c", ".." * 50, "eyJhbGciOiJub25lIn0.e30.", "é.é.é", "\x00", "a" * 100_000],
)
def test_what_is_no_token_is_refused(bench: Bench, wrong: str) -> None:
    with pytest.raises(tokens.BadToken):
        read(bench, wrong)


def test_an_unsigned_token_is_refused(bench: Bench) -> None:
    head = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    body = base64.urlsafe_b64encode(json.dumps(claims(bench)).encode()).rstrip(b"=").decode()
    with pytest.raises(tokens.BadToken):
        read(bench, f"{head}.{body}.")


@pytest.mark.parametrize("missing", ["exp", "aud", "origin"])
def test_a_token_must_say_everything(make_bench: Callable[..., Bench], missing: str) -> None:
    bench = make_bench(build_token_secret=SHARED)
    said = {name: value for name, value in claims(bench).items() if name != missing}
    with pytest.raises(tokens.BadToken):
        read(bench, forged(said))


def test_hubs_that_share_a_key_understand_each_other(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(build_token_secret=SHARED)
    assert read(bench, forged(claims(bench))) == tokens.BuildToken(launch_id=None)
    jwt.decode(issued(bench), OctKey.import_key(bytes.fromhex(SHARED)), algorithms=["HS256"])


def test_a_hub_that_shares_a_key_cannot_act_as_a_person_here(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(build_token_secret=SHARED)
    said = read(bench, forged(claims(bench, sub="local", backend="desk", launch="abcdefghijkl", jti="x")))
    assert (said.person, said.backend) == (None, None)
    assert said.launch_id not in (None, "abcdefghijkl")
    assert read(bench, issued(bench, person="local", backend="desk")).person == "local"


@given(wrong=st.text(max_size=300))
def test_no_text_is_more_than_refused(wrong: str) -> None:
    keys = SimpleNamespace(derive=lambda name: b"k" * 32)
    desk = SimpleNamespace(keys=keys, settings=settings.Settings())
    with pytest.raises(tokens.BadToken):
        tokens.read(desk, wrong, spec=SPEC, origin=HOST)  # type: ignore[arg-type]
