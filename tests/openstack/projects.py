"""A person's project in the bed."""

from __future__ import annotations

from providers.base import Purpose
from tests.servers.openstack.bed import Cloud

LIMITS = {"instances": 30, "cores": 200_000, "ram": 999_999}
SUBJECTS = {Purpose.LAUNCH: "launch:abcdefghijklmnopqrstuvwxyz", Purpose.REAP: "reap:abcdefghijklmnopqrstuvwxyz"}
"""Who a person is towards the cloud, in the two forms that it trusts separately."""


class Project:
    """With a user in it, room for what tests buy, and the network that Neutron allocates."""

    def __init__(self, bed: Cloud) -> None:
        self.user, self.id = bed.new_user("ada"), bed.new_project("paleo")
        bed.grant(self.user, self.id, "member")
        bed.quota(self.id, **LIMITS)
        limits = {"security_group": 100, "port": 100}
        bed.ask("PUT", f"/v2.0/quotas/{self.id}", {"quota": limits}, of="network")
        self.network = bed.network(self.id, bed.token(self.user, project_id=self.id))
