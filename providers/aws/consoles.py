"""What a machine has said on its serial console, for one that never dials out."""

from __future__ import annotations

from botocore.exceptions import ClientError

from providers.aws import refusals
from providers.aws.clients import Caller

NONE = ("InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed", "IncorrectInstanceState")


def read(caller: Caller, instance_id: str) -> str:
    """Empty where there is none, or none yet."""
    if not instance_id.startswith("i-"):
        return ""
    try:
        answer = caller.ask_plainly("ec2", "GetConsoleOutput", InstanceId=instance_id)
    except ClientError as refusal:
        if refusals.code_of(refusal) in NONE:
            return ""
        raise refusals.of_an_answer("ec2:GetConsoleOutput", refusal) from None
    return str(answer.get("Output", ""))  # which the SDK has decoded
