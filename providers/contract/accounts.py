"""The promises about accounts: how one is connected, signed in to and checked. All that a provider owes that cannot buy yet."""

# ruff: noqa: S101
from __future__ import annotations

import json
import re
import socket
import traceback
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from providers.base import Connection, Permission, Provider, Purpose, Tag, Tier, Trust
from providers.contract.fixtures import Fixtures
from providers.errors import BadCredential, InvalidOrder, ProviderUnavailable

OURS = {"iss", "sub", "aud", "exp", "iat", "nbf", "jti"}
"""Claims that the broker alone writes."""
LIES_ABOUT = {
    "AWS_ACCESS_KEY_ID": "AKIASOMEBODYELSES",
    "AWS_SECRET_ACCESS_KEY": "somebody-elses",
    "AWS_SESSION_TOKEN": "somebody-elses",
    "AWS_PROFILE": "no-such-profile",
    "AWS_CONFIG_FILE": "/nonexistent/config",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "OS_AUTH_URL": "http://127.0.0.1:9",
    "OS_CLOUD": "no-such-cloud",
    "OS_TOKEN": "somebody-elses",
    "OS_PASSWORD": "somebody-elses",
    "GOOGLE_APPLICATION_CREDENTIALS": "/nonexistent/key.json",
    "AZURE_CLIENT_ID": "somebody-elses",
    "AZURE_CLIENT_SECRET": "somebody-elses",
}
"""What the person who runs a broker may be signed in with."""


class AccountContract(Fixtures):
    """Subclass, override the fixtures, and run. Part of `ProviderContract`."""

    @pytest.fixture
    def trust(self) -> Trust:
        """Whom the guides tell people to trust."""
        return Trust(
            issuer="https://broker.example.org",
            launch_subject="launch:abcdefghijklmnopqrstuvwxyz",
            reap_subject="reap:abcdefghijklmnopqrstuvwxyz",
            broker="ab0123456789abcd",
            name="broker.example.org",
        )

    @pytest.fixture
    def unplugged(self, provider: Provider, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:  # noqa: ARG002 - they may need it
        with monkeypatch.context() as pulled:
            pulled.setattr(socket.socket, "connect", _refuse_to_connect)
            yield

    # kinds

    def test_every_kind_of_connection_introduces_itself(self, provider):
        names = [kind.name for kind in provider.kinds]
        assert names
        assert len(names) == len(set(names))
        assert all(re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name) for name in names)
        assert all(kind.title for kind in provider.kinds)

    def test_every_field_of_a_connection_can_be_filled_in(self, provider):
        for field in (field for kind in provider.kinds for field in kind.fields):
            assert field.help.endswith((".", "?")), f"{field.name}: a sentence"
            assert not field.pattern or not field.example or re.fullmatch(field.pattern, field.example), field.name
            assert not field.choices or field.default is None or field.default in field.choices, field.name
            assert not field.secret or field.default is None, f"{field.name}: a secret that everybody knows"

    def test_a_connection_has_one_secret_at_most(self, provider):
        for kind in provider.kinds:
            secrets = [field.name for field in kind.fields if field.secret]
            assert len(secrets) <= 1
            assert not secrets or kind.tier in (Tier.DELEGATED, Tier.KEPT), "what keeps a secret is not keyless"

    # assertion

    @pytest.mark.usefixtures("unplugged")
    def test_a_token_is_made_out_to_exactly_one_audience(self, provider, connection):
        asked = provider.assertion(connection, {"launch": "l1", "repo": "gh/owner/name/main", "backend": "cloud"})
        assert asked == provider.assertion(
            connection, {"launch": "l1", "repo": "gh/owner/name/main", "backend": "cloud"}
        )
        if asked is not None:
            assert asked.audience
            assert asked.audience == asked.audience.strip()
            assert not OURS & set(asked.claims), "the broker alone says who somebody is"
            json.dumps(dict(asked.claims))

    @pytest.mark.usefixtures("unplugged")
    def test_a_token_can_be_asked_for_before_there_is_a_launch(self, provider, connection):
        full = provider.assertion(connection, {"launch": "l1", "repo": "gh/owner/name/main", "backend": "cloud"})
        bare = provider.assertion(connection, {"backend": "cloud"})
        assert (bare is None) == (full is None)
        assert bare is None or bare.audience == full.audience

    def test_no_secret_travels_in_a_token(self, provider, connection):
        asked = provider.assertion(connection, {"backend": "cloud"})
        assert not asked or not connection.secret or connection.secret not in json.dumps(dict(asked.claims))

    # sign_in

    def test_a_credential_shows_no_secret(self, credential, connection):
        shown = repr(credential) + repr(connection)
        assert not [secret for secret in [*credential.secret.values(), connection.secret] if secret and secret in shown]

    def test_a_credential_says_who_it_is_and_when_it_ends(self, credential):
        now = datetime.now(UTC)
        assert credential.who
        assert credential.expires_at is None or credential.expires_at > now
        assert credential.reaches is None or credential.reaches.utcoffset() is not None

    def test_signing_in_is_repeatable(self, provider, connection, fresh_token, credential):
        assert provider.sign_in(connection, fresh_token(connection)).who == credential.who

    @pytest.mark.parametrize("purpose", Purpose)
    def test_one_signs_in_for_either_purpose(self, provider, connection, fresh_token, purpose):
        wanted = replace(connection, purpose=purpose)
        assert provider.sign_in(wanted, fresh_token(wanted)).who

    def test_one_signs_in_for_one_launch(self, provider, connection, fresh_token):
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
        wanted = replace(connection, tag=Tag(broker="b1", launch="l1", order="", until=until))
        assert provider.sign_in(wanted, fresh_token(wanted)).who

    def test_a_bad_connection_is_a_bad_credential(self, provider, bad_connection, fresh_token):
        with pytest.raises(BadCredential, match=r"\w+ .*\.$"):
            provider.sign_in(bad_connection, fresh_token(bad_connection))

    def test_a_wrong_secret_is_a_bad_credential_that_repeats_it_nowhere(self, provider, connection, fresh_token):
        if connection.secret is None:
            pytest.skip("this connection has no secret")
        wrong = replace(connection, secret=f"{connection.secret[:-1]}{'b' if connection.secret[-1] == 'a' else 'a'}")
        with pytest.raises(BadCredential) as refused:
            provider.sign_in(wrong, fresh_token(wrong))
        assert wrong.secret not in told(refused.value)

    def test_who_brings_no_token_is_not_let_in(self, provider, connection):
        if provider.assertion(connection, {"backend": "cloud"}) is None:
            pytest.skip("this connection trades no token")
        with pytest.raises(BadCredential):
            provider.sign_in(connection, None)

    def test_a_refusal_repeats_no_token(self, provider, connection, fresh_token, bad_connection):
        token = fresh_token(connection)
        if token is None:
            pytest.skip("this connection trades no token")
        with pytest.raises(BadCredential) as refused:
            provider.sign_in(bad_connection, token)
        assert token not in told(refused.value)

    def test_signing_in_says_when_the_cloud_cannot_be_asked(self, provider, connection, fresh_token, with_fault):
        with_fault("unavailable", "sign_in")
        with pytest.raises(ProviderUnavailable):
            provider.sign_in(connection, fresh_token(connection))

    def test_nothing_that_lies_about_signs_in(
        self, provider, connection, bad_connection, fresh_token, credential, monkeypatch
    ):
        if any(kind.name == connection.kind and kind.tier is Tier.AMBIENT for kind in provider.kinds):
            pytest.skip("this connection is what lies about")
        for name, value in LIES_ABOUT.items():
            monkeypatch.setenv(name, value)
        made = type(provider)(provider.configuration)
        assert made.sign_in(connection, fresh_token(connection)).who == credential.who
        with pytest.raises(BadCredential):
            made.sign_in(bad_connection, fresh_token(bad_connection))

    # check

    @pytest.mark.parametrize("purpose", Purpose)
    def test_a_check_says_what_is_missing_and_how_it_is_mended(self, provider, connection, fresh_token, purpose):
        wanted = replace(connection, purpose=purpose)
        found = provider.check(wanted, provider.sign_in(wanted, fresh_token(wanted)))
        assert all(isinstance(permission, Permission) and permission.name and permission.why for permission in found)
        assert [each.name for each in found if each.works is False and not each.fix] == []
        if purpose is Purpose.REAP:
            assert [each.name for each in found if each.purpose is not purpose] == [], "ending needs nothing more"

    def test_checking_shows_no_secret(self, provider, connection, credential):
        shown = repr(provider.check(connection, credential))
        assert not [secret for secret in [*credential.secret.values(), connection.secret] if secret and secret in shown]

    # guide

    @pytest.mark.usefixtures("unplugged")
    def test_the_guide_of_every_kind_is_for_people(self, provider, trust):
        for kind in people_connect_by(provider):
            guide = provider.guide(kind.name, trust, {})
            assert len(guide.can) == 3, f"{kind.name}: three things that it will be able to do"
            assert guide.cannot
            assert guide.revoke, f"{kind.name}: how it is ended on the cloud's own side"
            assert all(line.strip() for line in (*guide.can, *guide.cannot))
            assert [
                step for step in (*guide.steps, *guide.revoke) if not step.rstrip("`’”)").endswith((".", ":"))
            ] == []
            assert not guide.link or guide.link.startswith("https://")
            assert bool(guide.link) <= bool(guide.link_title)
            assert bool(guide.script) <= bool(guide.script_title)
            assert guide.steps or guide.link or guide.script

    @pytest.mark.usefixtures("unplugged")
    def test_a_guide_is_the_same_each_time(self, provider, trust):
        for kind in people_connect_by(provider):
            assert provider.guide(kind.name, trust, {}) == provider.guide(kind.name, trust, {})

    @pytest.mark.usefixtures("unplugged")
    def test_there_is_no_guide_for_a_kind_that_is_not_taken(self, provider, trust):
        with pytest.raises(InvalidOrder, match=r"\.$"):
            provider.guide("no-such-kind", trust, {})


def people_connect_by(provider):
    """The kinds that are shown to people."""
    return [kind for kind in provider.kinds if kind.tier not in (Tier.NONE, Tier.AMBIENT)]


def told(error: BaseException) -> str:
    """All that a log would have of it, its causes too; but not the lines of the test that raised it."""
    return "".join(traceback.format_exception(error)) + repr(error)


def _refuse_to_connect(*_: object) -> None:
    raise AssertionError("a provider touched the network where it must not")
