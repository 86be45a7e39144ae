"""Signing in to AWS: the exchanges, their refusals, and that nothing that lies about is used."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import botocore.session
import pytest
from botocore.exceptions import ClientError

from providers.aws import AwsProvider, clients, guides
from providers.base import Connection
from providers.errors import (
    BadCredential,
    InvalidOrder,
    PermissionMissing,
    ProviderUnavailable,
)
from tests.doubles.aws_double import ACCOUNT, ANYTHING
from tests.providers.aws_account import LAUNCH, REAP, SUBJECT, TAG, TRUST, OverAws, token


class TestSigningIn(OverAws):
    def test_a_person_signs_in_without_a_key(self, provider, account, issuer):
        found = provider.sign_in(LAUNCH, token(issuer))
        assert found.who == f"arn:aws:sts::{ACCOUNT}:assumed-role/AnybinderLaunch-{SUBJECT}/anybinder-launch"
        assert timedelta(minutes=14) < found.expires_at - datetime.now(UTC) <= timedelta(minutes=15)
        assert found.reaches is None

    def test_a_session_is_named_after_its_launch(self, provider, account, issuer):
        assert provider.sign_in(replace(LAUNCH, tag=TAG), token(issuer)).who.endswith("/anybinder-launchlaunch")

    def test_the_two_purposes_have_a_role_each(self, provider, account, issuer):
        assert f"/AnybinderReap-{SUBJECT}/" in provider.sign_in(REAP, token(issuer, REAP)).who
        with pytest.raises(BadCredential, match="AccessDenied"):
            provider.sign_in(LAUNCH, token(issuer, REAP))

    def test_somebody_else_cannot_open_these_roles(self, provider, account, issuer):
        with pytest.raises(BadCredential, match=r"AccessDenied.*There is no role in this account that trusts"):
            provider.sign_in(LAUNCH, token(issuer, sub="launch:somebodyelse"))

    def test_two_people_may_connect_one_account(self, provider, account, issuer):
        other = replace(TRUST, launch_subject="launch:other", reap_subject="reap:other")
        template = provider.guide("web_identity", other, {}).download[guides.TEMPLATE]
        with pytest.raises(ClientError, match="EntityAlreadyExists"):
            account.deploy(template, "other")
        account.deploy(template, "other", TrustsIssuerAlready="yes")
        signed_in = provider.sign_in(replace(LAUNCH, subject="other"), token(issuer, sub="launch:other"))
        assert "AnybinderLaunch-other" in signed_in.who

    def test_who_deletes_the_stack_keeps_the_others_who_trust_the_issuer(self, provider, account, issuer):
        account.delete()
        with pytest.raises(BadCredential, match="AccessDenied"):
            provider.sign_in(LAUNCH, token(issuer))
        assert account.client("iam").list_open_id_connect_providers()["OpenIDConnectProviderList"]

    def test_an_account_that_does_not_know_the_broker_says_so(self, provider, aws, issuer):
        aws.account()
        with pytest.raises(BadCredential, match=r"No OpenIDConnect provider.*does not know this broker"):
            provider.sign_in(LAUNCH, token(issuer))

    def test_session_tags_need_no_more_than_the_template(self, provider, account, issuer, aws):
        claims = provider.assertion(LAUNCH, {"launch": "l1", "repo": "gh/o/r/HEAD?x=ü%", "backend": "aws"}).claims
        provider.sign_in(LAUNCH, token(issuer, **claims))
        (session,) = [each for each in aws.principals() if each.tags]
        assert session.tags == {
            "anybinder-launch": "l1",
            "anybinder-repo": "gh/o/r/HEAD_x=ü_",
            "anybinder-backend": "aws",
        }

    def test_only_the_kind_without_a_key_trades_a_token(self, provider):
        assert provider.assertion(LAUNCH, {}).audience == "sts.amazonaws.com"
        assert provider.assertion(Connection(kind="access_key"), {}) is None

    def test_an_access_key_is_traded_at_once(self, provider, account, aws):
        key, secret = account.access_key()
        connection = Connection(kind="access_key", settings={"access_key_id": key}, secret=secret)
        found = provider.sign_in(connection, None)
        assert found.who == f"arn:aws:iam::{ACCOUNT}:user/anybinder"
        assert found.secret["access_key_id"].startswith("ASIA")
        assert secret not in found.secret.values()
        with pytest.raises(BadCredential, match="SignatureDoesNotMatch"):
            provider.sign_in(replace(connection, secret="x" * 40), None)
        account.client("iam").update_access_key(UserName="anybinder", AccessKeyId=key, Status="Inactive")
        with pytest.raises(BadCredential, match="InvalidClientTokenId"):
            provider.sign_in(connection, None)

    def test_what_was_traded_for_a_key_opens_no_iam(self, provider, account):
        key, secret = account.access_key(ANYTHING)
        found = provider.sign_in(Connection(kind="access_key", settings={"access_key_id": key}, secret=secret), None)
        with pytest.raises(BadCredential):
            clients.Caller(provider.place, found.secret).ask("iam", "ListUsers")

    def test_a_profile_of_this_computer_signs_in(self, provider, account, home_with_profile):
        found = provider.sign_in(Connection(kind="profile", settings={"profile": "work"}), None)
        assert found.who == f"arn:aws:iam::{ACCOUNT}:user/anybinder"
        for name, said in (("empty", "nothing to sign in with"), ("none", "ProfileNotFound")):
            with pytest.raises(BadCredential, match=said):
                provider.sign_in(Connection(kind="profile", settings={"profile": name}), None)

    @pytest.fixture
    def home_with_profile(self, account, tmp_path, monkeypatch):
        key, secret = account.access_key()
        (tmp_path / ".aws").mkdir()
        text = f"[profile empty]\nregion = x\n[profile work]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
        (tmp_path / ".aws" / "config").write_text(text)
        monkeypatch.setenv("HOME", str(tmp_path))


class TestRefusals(OverAws):
    @pytest.mark.parametrize(
        ("status", "code", "message", "meant", "said"),
        [
            (400, "InvalidIdentityToken", "Incorrect token audience", BadCredential, "another audience"),
            (400, "InvalidIdentityToken", "Couldn't retrieve verification key", BadCredential, "cannot tell"),
            (400, "InvalidIdentityToken", "", BadCredential, "does not take this broker's token"),
            (400, "ExpiredTokenException", "Token expired", BadCredential, "had expired"),
            (403, "IDPRejectedClaim", "used before", BadCredential, "fresh one"),
            (400, "IDPCommunicationError", "timeout", ProviderUnavailable, "could not reach this broker"),
            (403, "AccessDenied", "Not authorized", BadCredential, "no role in this account"),
            (403, "RegionDisabledException", "", PermissionMissing, "Activate this region"),
            (400, "PackedPolicyTooLarge", "", InvalidOrder, "too long"),
            (400, "MalformedPolicyDocument", "", InvalidOrder, "wrong"),
            (400, "ValidationError", "no such parameter", InvalidOrder, "error of ours"),
            (400, "Throttling", "Rate exceeded", ProviderUnavailable, "for now"),
            (503, "ServiceUnavailable", "", ProviderUnavailable, "for now"),
            (500, "SomethingNew", "", ProviderUnavailable, "for now"),
        ],
    )
    def test_each_becomes_one_of_ours_with_awss_words(
        self, provider, account, issuer, aws, status, code, message, meant, said
    ):
        aws.fail("AssumeRoleWithWebIdentity", status, code, message)
        before = len(aws.calls)
        with pytest.raises(meant) as refusal:
            provider.sign_in(LAUNCH, token(issuer))
        assert code in str(refusal.value)
        assert message in str(refusal.value)
        assert said in str(refusal.value)
        assert len(aws.calls) == before + 1, "a token is sent once"

    def test_no_answer_is_unavailable_and_the_token_is_not_sent_again(self, provider, account, issuer, aws):
        aws.silent("AssumeRoleWithWebIdentity")
        before = len(aws.calls)
        with pytest.raises(ProviderUnavailable, match="did not answer"):
            provider.sign_in(LAUNCH, token(issuer))
        assert len(aws.calls) == before + 1

    def test_nobody_there_is_unavailable(self, provider, issuer):
        nowhere = AwsProvider({"region": "eu-central-1", "endpoint_url": "http://127.0.0.1:9"})
        with pytest.raises(ProviderUnavailable, match="AWS did not answer"):
            nowhere.sign_in(LAUNCH, token(issuer))

    def test_a_refusal_shows_no_token(self, provider, account, issuer, aws):
        shown = token(issuer, sub="launch:somebodyelse")
        with pytest.raises(BadCredential) as refusal:
            provider.sign_in(LAUNCH, shown)
        assert not [part for part in shown.split(".") if part in str(refusal.value)]
        assert refusal.value.__cause__ is None

    def test_a_credential_that_has_ended_is_a_bad_one(self, provider, account, issuer, aws):
        credential = provider.sign_in(LAUNCH, token(issuer))
        aws.clock = lambda: datetime.now(UTC) + timedelta(minutes=16)
        with pytest.raises(BadCredential, match="ExpiredToken"):
            provider.check(LAUNCH, credential)

    def test_a_settings_mistake_is_named_at_once(self):
        with pytest.raises(InvalidOrder, match="region"):
            AwsProvider({"region": "http://elsewhere"})
        with pytest.raises(InvalidOrder, match="AWS has no region"):
            AwsProvider({"region": "xx-nowhere-1"})

    @pytest.mark.parametrize(
        ("region", "partition", "host"),
        [
            ("us-east-1", "aws", "sts.us-east-1.amazonaws.com"),
            ("eu-central-1", "aws", "sts.eu-central-1.amazonaws.com"),
            ("cn-north-1", "aws-cn", "sts.cn-north-1.amazonaws.com.cn"),
            ("us-gov-west-1", "aws-us-gov", "sts.us-gov-west-1.amazonaws.com"),
        ],
    )
    def test_tokens_go_to_the_regions_own_address(self, region, partition, host):
        place = AwsProvider({"region": region}).place
        assert place.partition == partition
        assert clients._client("sts", place, None).meta.endpoint_url == f"https://{host}"


class TestNothingLiesAbout(OverAws):
    """What lies about on the broker's computer is never signed in with."""

    @pytest.fixture
    def lures(self, tmp_path, monkeypatch):
        """Everything that the SDK would find by itself: variables, files, a metadata service that counts who asks."""
        asked = []

        class Metadata(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                self.send_error(404)

            do_PUT = do_GET  # noqa: N815 -- the server looks for this name

            def log_message(self, *args):
                pass

        server = HTTPServer(("127.0.0.1", 0), Metadata)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = f"http://127.0.0.1:{server.server_port}"
        (tmp_path / ".aws").mkdir()
        keys = "aws_access_key_id = AKIALURELURELURE\naws_secret_access_key = lure\n"
        (tmp_path / ".aws" / "credentials").write_text(f"[default]\n{keys}")
        (tmp_path / ".aws" / "config").write_text(f"[default]\nregion = us-west-2\nendpoint_url = {there}\n")
        for name, value in {
            "HOME": str(tmp_path),
            "AWS_ACCESS_KEY_ID": "AKIALURELURELURE",
            "AWS_SECRET_ACCESS_KEY": "lure",
            "AWS_SESSION_TOKEN": "lure",
            "AWS_PROFILE": "default",
            "AWS_REGION": "us-west-2",
            "AWS_DEFAULT_REGION": "us-west-2",
            "AWS_ENDPOINT_URL": there,
            "AWS_ENDPOINT_URL_STS": there,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": there,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{there}/container",
            "AWS_WEB_IDENTITY_TOKEN_FILE": "/etc/hostname",
            "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/lure",
            "AWS_CA_BUNDLE": "/nonexistent",
            "AWS_MAX_ATTEMPTS": "5",
            "HTTP_PROXY": there,
        }.items():
            monkeypatch.setenv(name, value)
        yield asked
        server.shutdown()
        server.server_close()

    def test_the_lures_would_be_taken(self, lures):
        assert botocore.session.Session().get_credentials().access_key == "AKIALURELURELURE"

    def test_none_of_them_is_used(self, provider, account, issuer, lures, aws):
        found = provider.sign_in(LAUNCH, token(issuer))
        assert all(each.works is not False for each in provider.check(LAUNCH, found))
        assert lures == []

    def test_without_a_token_nobody_is_signed_in(self, provider, account, lures):
        with pytest.raises(BadCredential):
            provider.sign_in(LAUNCH, None)
        with pytest.raises(BadCredential):
            provider.sign_in(Connection(kind="access_key"), None)
        assert clients.bare_session().get_credentials() is None
        assert lures == []

    def test_a_profile_asks_no_variable_and_no_metadata_service(self, lures, tmp_path):
        (tmp_path / ".aws" / "config").write_text("[profile empty]\nregion = x\n")
        assert clients.profile_keys("empty") is None
        assert lures == []
        assert os.environ["AWS_ACCESS_KEY_ID"]
