"""What the double of AWS can arrange for a verb of the driver, by the action that the verb stands or falls with."""

from __future__ import annotations

from dataclasses import replace

from providers.aws import AwsProvider
from providers.base import Instance
from providers.contract import Faults
from tests.doubles.aws_double import AwsDouble

ACTIONS = {
    "sign_in": ("AssumeRoleWithWebIdentity", "GetSessionToken"),  # whichever of the two exchanges it is
    "offers": ("DescribeInstanceTypes",),
    "provision": ("RunInstances",),
    "describe": ("DescribeInstances",),
    "terminate": ("TerminateInstances",),
    "instances": ("DescribeInstances",),
}
REFUSALS = {
    "no_capacity": (500, "InsufficientInstanceCapacity", "We currently do not have sufficient capacity in the zone."),
    "quota": (
        400,
        "VcpuLimitExceeded",
        "You have requested more vCPU capacity than your current vCPU limit of 32 allows.",
    ),
    "permission": (403, "UnauthorizedOperation", "You are not authorized to perform this operation."),
    "bad_credential": (400, "RequestExpired", "Request has expired."),
    "unavailable": (503, "RequestLimitExceeded", "Request limit exceeded."),
}
EFFECTS = {"lost_response": "lost", "duplicate": "duplicate", "half_created": "half", "silence": "hold"}
SLOW_SECONDS = 60


class AwsFaults(Faults):
    """All of them, and for silence a driver that is soon out of patience."""

    quota = "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances"
    permission = "ec2:RunInstances"

    def __init__(self, aws: AwsDouble, provider: AwsProvider) -> None:
        self.aws, self.provider, self.patient = aws, provider, provider.place

    def knows(self, fault: str, call: str) -> bool:
        bought_alone = {"no_capacity", "quota", "duplicate", "half_created", "slow_boot", "hidden"}
        if fault in bought_alone:
            return call == "provision"
        if fault == "slow_end":
            return call == "terminate"
        return call in ACTIONS

    def arrange(self, fault: str, call: str, *, times: int = 1) -> None:
        if fault in ("slow_boot", "slow_end"):
            setattr(self.aws.machines, "boot_seconds" if fault == "slow_boot" else "end_seconds", SLOW_SECONDS)
        elif fault == "hidden":
            self.aws.machines.hide_seconds = self.provider.lists_within.total_seconds()
        elif fault in REFUSALS:
            for action in ACTIONS[call]:
                self.aws.fail(action, *REFUSALS[fault], times=times)
        else:
            if fault == "silence":
                self.provider.place = replace(self.provider.place, read_seconds=0.3)
            for action in ACTIONS[call]:
                self.aws.fault(action, EFFECTS[fault], times=times)

    def die(self, instance: Instance) -> None:
        self.aws.take_away(instance.id)

    def power_off(self, instance: Instance) -> None:
        self.aws.power_off(instance.id)

    def clear(self) -> None:
        """With its patience back: whoever cleans up after the test may do so on a busy computer."""
        self.aws.clear()
        self.provider.place = self.patient
