"""The provider contract over a real OpenStack: Keystone, Glance, Placement, Nova and Neutron answer, and enforce."""

from __future__ import annotations

from providers.contract import ProviderContract
from tests.openstack.over_bed import ByApplicationCredential, ByTrust


class TestByApplicationCredential(ByApplicationCredential, ProviderContract):
    """With the access rules of the guide, and no more."""


class TestByTrust(ByTrust, ProviderContract):
    """Without a key."""


def test_no_request_was_refused_because_it_was_malformed(gate):
    """By Nova's, Keystone's and Glance's own JSON schemas and Neutron's attribute maps, in all that was asked above."""
    assert gate.calls and gate.malformed() == []
