"""The double of AWS refuses what AWS refuses, with AWS's own codes: asked with boto3 alone, without our driver."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from joserfc.jwk import RSAKey

from providers.aws import guides
from tests.doubles.aws_double import ACCOUNT
from tests.providers.aws_account import REAP, SUBJECT, OverAws, token

ROLE = f"arn:aws:iam::{ACCOUNT}:role/AnybinderLaunch-{SUBJECT}"


class TestTheGate(OverAws):
    @pytest.fixture
    def exchange(self, aws, account, issuer):
        sts = boto3.client(
            "sts", region_name=aws.region, endpoint_url=aws.url, config=Config(signature_version=UNSIGNED)
        )

        def exchange(given=None, **asked):
            wanted = {
                "RoleArn": ROLE,
                "RoleSessionName": "a-session",
                "WebIdentityToken": given or token(issuer),
                **asked,
            }
            return sts.assume_role_with_web_identity(**wanted)

        return exchange

    @pytest.fixture
    def refused(self, exchange):
        def refused(given=None, **asked):
            with pytest.raises(ClientError) as refusal:
                exchange(given, **asked)
            error = refusal.value.response["Error"]
            return error["Code"], error["Message"]

        return refused

    def test_the_answer_is_whole(self, exchange):
        answer = exchange()
        assert answer["Provider"] == f"arn:aws:iam::{ACCOUNT}:oidc-provider/issuer.example"
        assert (answer["Audience"], answer["SubjectFromWebIdentityToken"]) == (guides.AUDIENCE, f"launch:{SUBJECT}")
        assert answer["Credentials"]["Expiration"] > datetime.now(UTC) + timedelta(minutes=59)

    @pytest.mark.parametrize("alg", ["none", "HS256", "RS512"])
    def test_no_other_signature_than_rs256_passes(self, refused, issuer, alg):
        head, body, signature = token(issuer).split(".")
        header = json.loads(base64.urlsafe_b64decode(head + "=="))
        other = base64.urlsafe_b64encode(json.dumps({**header, "alg": alg}).encode()).rstrip(b"=").decode()
        assert refused(f"{other}.{body}.{signature}")[0] == "InvalidIdentityToken"

    def test_garbage_is_no_token(self, refused):
        assert refused("garbage")[0] == "InvalidIdentityToken"

    def test_a_token_that_was_changed_is_no_token(self, refused, issuer):
        head, _, signature = token(issuer).split(".")
        body = token(issuer, sub="launch:other").split(".")[1]
        assert refused(f"{head}.{body}.{signature}") == (
            "InvalidIdentityToken",
            "The signature of the token is invalid",
        )

    def test_a_key_under_another_name_is_not_known(self, refused, issuer):
        other = RSAKey.generate_key(2048, {"kid": "other"})
        assert "verification key" in refused(issuer.token(key=other, sub=f"launch:{SUBJECT}", aud=guides.AUDIENCE))[1]

    def test_azp_wins_over_aud(self, exchange, refused, issuer):
        assert refused(token(issuer, azp="anybinder"))[1] == "Incorrect token audience"
        assert exchange(token(issuer, aud="elsewhere", azp=guides.AUDIENCE))

    def test_a_list_of_audiences_counts_by_its_first(self, exchange, issuer):
        assert exchange(token(issuer, aud=[guides.AUDIENCE, "elsewhere"]))

    def test_a_token_works_once_unless_the_test_says_otherwise(self, exchange, refused, aws, issuer):
        given = token(issuer)
        exchange(given)
        assert refused(given)[0] == "IDPRejectedClaim"
        aws.refuses_replays = False
        exchange(given)

    def test_times_are_compared_with_its_own_clock(self, refused, aws):
        for minutes, code in ((11, "ExpiredTokenException"), (-11, "InvalidIdentityToken")):
            aws.clock = lambda minutes=minutes: datetime.now(UTC) + timedelta(minutes=minutes)
            assert refused()[0] == code

    def test_an_issuer_that_does_not_answer_is_said_so(self, refused, issuer):
        issuer.broken = True
        assert refused()[0] == "IDPCommunicationError"

    def test_what_was_read_of_an_issuer_is_kept_until_it_is_too_old(self, exchange, aws, issuer):
        exchange()
        asked = len(issuer.asked)
        exchange()
        assert len(issuer.asked) == asked
        aws.issuers.forget()
        exchange()
        assert len(issuer.asked) > asked

    def test_a_role_limits_its_sessions(self, refused):
        assert refused(DurationSeconds=7200)[0] == "ValidationError"

    def test_a_policy_is_read_before_it_limits(self, refused):
        assert refused(Policy="not a policy")[0] == "MalformedPolicyDocument"

    def test_a_role_that_does_not_exist_tells_nobody_so(self, refused):
        assert refused(RoleArn=f"{ROLE}x")[0] == "AccessDenied"

    def test_tags_need_the_roles_consent(self, exchange, refused, account, issuer):
        tags = {"https://aws.amazon.com/tags": {"principal_tags": {"a": ["b"]}, "transitive_tag_keys": []}}
        assert exchange(token(issuer, **tags))
        iam, name = account.client("iam"), ROLE.rpartition("/")[2]
        trust = json.dumps(iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"])
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust.replace(', "sts:TagSession"', ""))
        assert refused(token(issuer, **tags)) == ("AccessDenied", "Not authorized to perform sts:TagSession")

    def test_a_session_limits_what_its_role_may(self, exchange, aws):
        nothing = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
        given = exchange(Policy=json.dumps(nothing))["Credentials"]
        with pytest.raises(ClientError, match="because no session policy allows the ec2:DescribeInstances action"):
            client(aws, given).describe_instances()

    def test_a_credential_is_good_with_all_its_parts_alone(self, exchange, aws):
        given = exchange()["Credentials"]
        client(aws, given).describe_instances()
        for part in ("SecretAccessKey", "SessionToken"):
            with pytest.raises(ClientError, match="AuthFailure"):
                client(aws, {**given, part: "wrong"}).describe_instances()
        aws.clock = lambda: datetime.now(UTC) + timedelta(hours=2)
        with pytest.raises(ClientError, match="RequestExpired"):
            client(aws, given).describe_instances()

    def test_nothing_else_is_answered_without_a_signature(self, aws):
        anybody = boto3.client(
            "ec2", region_name=aws.region, endpoint_url=aws.url, config=Config(signature_version=UNSIGNED)
        )
        with pytest.raises(ClientError, match="MissingAuthenticationToken"):
            anybody.describe_instances()

    def test_one_account_does_not_open_another(self, aws, refused):
        aws.account("999999999999")
        assert refused(RoleArn=ROLE.replace(ACCOUNT, "999999999999"))[0] == "InvalidIdentityToken"

    def test_the_reap_subject_opens_the_reap_role(self, exchange, issuer):
        assert exchange(token(issuer, REAP), RoleArn=ROLE.replace("Launch", "Reap"))


def client(aws, given):
    return boto3.client(
        "ec2",
        region_name=aws.region,
        endpoint_url=aws.url,
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
        config=Config(retries={"total_max_attempts": 1}),
    )
