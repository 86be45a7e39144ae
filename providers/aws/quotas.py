"""Limits of an account by AWS's own names, as Service Quotas lists them and as a raise is asked for."""

from __future__ import annotations

from providers.errors import QuotaExceeded

STANDARD = "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", "L-1216C47A"
STANDARD_SPOT = "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests", "L-34B43A08"
GRAPHICS = "Running On-Demand G and VT instances", "L-DB2E81BA"
GRAPHICS_SPOT = "All G and VT Spot Instance Requests", "L-3819A6DF"
OTHERS = {
    "VolumeLimitExceeded": ("Storage for General Purpose SSD (gp3) volumes, in TiB", "L-7A658B76"),
    "SecurityGroupLimitExceeded": ("VPC security groups per Region", "L-E79EC296"),
    "NetworkInterfaceLimitExceeded": ("Network interfaces per Region", "L-DF5E4CA3"),
}
OF_MACHINES = ("VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded")
"""Codes by which EC2 says that the quota of a family of machines is reached."""


def reached(code: str, machine: str = "", *, spot: bool = False) -> QuotaExceeded | None:
    """What to raise where this code means that a quota is reached, by a machine of this type; else None."""
    if code in OF_MACHINES:
        return _said(code, *_of_machine(machine, spot=spot or code == "MaxSpotInstanceCountExceeded"))
    if code in OTHERS:
        return _said(code, *OTHERS[code])
    return None


def _of_machine(machine: str, *, spot: bool) -> tuple[str, str]:
    if machine.startswith(("g", "vt")):
        return GRAPHICS_SPOT if spot else GRAPHICS
    return STANDARD_SPOT if spot else STANDARD


def _said(code: str, name: str, number: str) -> QuotaExceeded:
    return QuotaExceeded(
        f"AWS answered “{code}”: the quota “{name}” ({number}) of your account is reached. End machines that you do not need, "
        "or ask for a higher quota under Service Quotas → Amazon EC2 in the AWS console."
    )
