"""The provider contract over a real OpenStack: Keystone, Glance, Placement, Nova and Neutron answer, and enforce."""

from __future__ import annotations

from providers.contract import AccountContract, ProviderContract
from providers.contract.machines import MachineContract
from tests.openstack.over_bed import ByApplicationCredential, ByTrust


class TestByApplicationCredential(ByApplicationCredential, ProviderContract):
    """With the access rules of the guide, and no more."""


class TestByTrust(ByTrust, AccountContract, MachineContract):
    """Without a key: the account, and machines from birth to end, with what they hold to end themselves.

    What else the contract asks is asked of the cloud in the same words, whoever's token opens it.
    """


def test_no_request_was_refused_because_it_was_malformed(gate):
    """By Nova's, Keystone's and Glance's own JSON schemas and Neutron's attribute maps, in all that was asked above."""
    assert gate.calls and gate.malformed() == []
