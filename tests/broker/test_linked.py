"""What Keycloak answers when it is asked for the token that another provider gave a person."""

from __future__ import annotations

import httpx
import pytest

from broker import errors, linked, openid, settings

IDENTITY = settings.IdentitySetting(
    name="hub", issuer="https://sso.example/realms/r", client_id="anybinder", title="The university"
)


@pytest.mark.parametrize(
    "text",
    [
        '{"access_token": "gho_1", "token_type": "bearer", "scope": "repo"}',
        "access_token=gho_1&scope=repo%2Cuser&token_type=bearer",
        "access_token=gho_1\n",
    ],
)
def test_a_stored_answer_is_read_as_json_and_as_a_forms_fields(text):
    assert linked.parsed(text) == "gho_1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"error": "bad"}',
        '{"access_token": null}',
        '{"access_token": ["a"]}',
        '{"access_token": "a b"}',
        '{"access_token": "a\\r\\nX-Header: b"}',
        "error=bad_verification_code",
        f"access_token={'x' * 5000}",
        "<html>",
    ],
)
def test_what_is_no_token_or_could_not_be_sent_is_none(text):
    assert linked.parsed(text) is None


@pytest.mark.parametrize("status", [400, 404, 502])
def test_somebody_without_a_link_has_no_token(status):
    assert linked._read(httpx.Response(status), IDENTITY, "github") is None


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        (401, errors.SignInAgain),
        (403, linked.LinkRefused),
        (500, openid.Unavailable),
        (302, openid.Unavailable),
    ],
)
def test_other_answers_are_refusals_that_say_what_to_do(status, refusal):
    with pytest.raises(refusal) as raised:
        linked._read(httpx.Response(status, text="access_token=secret-token"), IDENTITY, "github")
    assert "secret-token" not in str(raised.value)
