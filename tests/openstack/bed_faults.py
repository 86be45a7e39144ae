"""The faults of the provider contract, over a real OpenStack: by the gate where they are the network's, else really."""

from __future__ import annotations

from providers.base import Instance
from providers.contract import Faults
from tests.doubles.openstack_gate import OpenStackGate
from tests.servers.openstack.bed import Cloud

CALLS = {
    "sign_in": ("identity", "POST", r"/auth/tokens|/OS-FEDERATION/.*"),
    "offers": ("compute", "GET", r"/flavors/detail"),
    "provision": ("compute", "POST", r"/servers"),
    "describe": ("compute", "GET", r"/servers/detail"),
    "terminate": ("compute", "DELETE", r"/servers/[^/]+"),
    "instances": ("compute", "GET", r"/servers/detail"),
}
"""The request that each verb is about."""
MADE_FIRST = ("image", "POST", r"/images")
"""By `provision`: the order's claim."""
POLICIES = {"provision": "create", "describe": "detail", "instances": "detail", "terminate": "delete"}
BY_THE_GATE = {
    "lost_response": "lost_response",
    "duplicate": "duplicate",
    "unavailable": "unavailable",
    "silence": "silence",
    "bad_credential": "bad_token",
    "half_created": "lost_request",
    "hidden": "hidden",
}
OF_THE_HOST = {"slow_boot": "provision", "slow_end": "terminate"}
MINUTE = 60
ALWAYS = 10_000


class BedFaults(Faults):
    """A lack of capacity is not among them: no OpenStack says it in its answer to the creating call.

    What takes a minute is over when `advance` has come so far.
    """

    quota, permission = "instances", "os_compute_api:servers:create"

    def __init__(self, cloud: Cloud, gate: OpenStackGate, project: str, limits: dict[str, int]) -> None:
        self.cloud, self.gate, self.project, self.limits = cloud, gate, project, limits
        self.passed: float | None = None

    def knows(self, fault: str, call: str) -> bool:
        if fault in OF_THE_HOST:
            return OF_THE_HOST[fault] == call
        if fault in ("quota", "half_created", "duplicate", "hidden"):
            return call == "provision"
        return fault in BY_THE_GATE if fault != "permission" else call in POLICIES

    def arrange(self, fault: str, call: str, *, times: int = 1) -> None:
        if fault in OF_THE_HOST:
            self.cloud.hold(True)
            self.passed = 0
        elif fault == "quota":
            self.cloud.quota(self.project, instances=0)
        elif fault == "permission":
            self.cloud.rule(**{POLICIES[call]: "role:admin"})
        elif fault == "hidden":
            self.gate.fault("hidden", *CALLS["instances"], times=ALWAYS)
            self.passed = 0
        elif (fault, call) == ("unavailable", "provision"):
            self.gate.fault("unavailable", *MADE_FIRST, times=times)
        else:
            self.gate.fault(BY_THE_GATE[fault], *CALLS[call], times=times)

    def advance(self, seconds: float) -> None:
        if self.passed is not None:
            self.passed += seconds
            if self.passed >= MINUTE:
                self.clear()

    def die(self, instance: Instance) -> None:
        """No machine of an OpenStack does more than be off: its record, its card and its disk stay."""
        self.power_off(instance)

    def power_off(self, instance: Instance) -> None:
        assert instance.tag is not None
        for machine in self.of_order(instance.tag.order):
            self.cloud.power_off(machine)

    def of_order(self, order: str) -> list[str]:
        """The ids of the machines that are billed for it: all that are not being deleted."""
        return [
            str(machine["id"])
            for machine in self.cloud.machines(project_id=self.project)
            if machine["metadata"].get("anybinder-order") == order
            and machine["OS-EXT-STS:task_state"] not in ("deleting", "soft-deleting")
        ]

    def clear(self) -> None:
        self.passed = None
        self.gate.clear()
        self.cloud.hold(False)
        self.cloud.rule()
        self.cloud.quota(self.project, **self.limits)
