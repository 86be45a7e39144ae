"""What people are told to do in their AWS account."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from providers.aws import AwsProvider, guides
from providers.errors import (
    InvalidOrder,
)
from tests.providers.aws_account import SUBJECT, TRUST


class TestGuides:
    provider = AwsProvider({"region": "eu-central-1"})

    def test_three_can_and_three_cannot(self):
        guide = self.provider.guide("web_identity", TRUST, {})
        assert (len(guide.can), len(guide.cannot)) == (3, 3)

    def test_one_link_where_the_operator_has_the_template_in_s3(self):
        there = AwsProvider({"region": "cn-north-1", "template_url": "https://t.s3.amazonaws.com/t.yaml"})
        guide = there.guide("web_identity", TRUST, {})
        assert guide.link.startswith(
            "https://cn-north-1.console.amazonaws.cn/cloudformation/home?region=cn-north-1#/stacks/"
        )
        assert "templateURL=https%3A%2F%2Ft.s3.amazonaws.com%2Ft.yaml" in guide.link
        assert f"param_LaunchSubject=launch%3A{SUBJECT}" in guide.link
        assert self.provider.guide("web_identity", TRUST, {}).link == ""

    def test_a_broker_whose_address_has_a_port_is_told_that_aws_takes_none(self):
        there = replace(TRUST, issuer="https://issuer.example:8443")
        assert "AWS takes no issuer whose address has a port" in self.provider.guide("web_identity", there, {}).steps[0]

    def test_the_script_is_one_that_a_shell_reads(self):
        script = self.provider.guide("web_identity", TRUST, {}).script
        assert subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True).returncode == 0
        assert guides.filled(guides.stack_parameters(self.provider.place, TRUST)).rstrip() in script

    def test_an_unknown_kind_is_refused(self):
        with pytest.raises(InvalidOrder):
            self.provider.guide("telepathy", TRUST, {})

    def test_no_field_takes_a_document_or_an_address(self):
        for kind in self.provider.kinds:
            assert all(field.pattern for field in kind.fields)
            assert sum(field.secret for field in kind.fields) <= 1
