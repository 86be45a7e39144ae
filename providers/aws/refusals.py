"""What AWS answers when it refuses, as the broker needs to hear it: AWS's own words first, then what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError, ParamValidationError

from providers.aws import quotas
from providers.errors import (
    BadCredential,
    InvalidOrder,
    NoCapacity,
    PermissionMissing,
    ProviderError,
    ProviderUnavailable,
)

WORDS_MOST = 300  # characters of AWS's own; it appends an encoded message of thousands
UPDATE = "Update the stack in your account with the script of this page"
SIGN_IN = {
    "audience": "Your account trusts this broker's tokens for another audience than sts.amazonaws.com. "
    f"{UPDATE}, or add that audience to the identity provider in IAM.",
    "no openidconnect provider": "Your account does not know this broker yet. Open the link of this page, or run its script; "
    "where it says that it trusts the issuer already, choose yes.",
    "verification key": "AWS cannot tell that the token is this broker's: the key that signed it is not among those that "
    "AWS has read from this broker. Try again in an hour; whoever runs this broker must see that its address answers.",
}
"""InvalidIdentityToken by what its message names."""
MEANT: dict[str, tuple[type[ProviderError], str]] = {
    "InvalidIdentityToken": (BadCredential, f"AWS does not take this broker's token. {UPDATE}."),
    "ExpiredTokenException": (
        BadCredential,
        "The token had expired when AWS read it. Try again; where it stays, the clock of this broker is wrong.",
    ),
    "IDPRejectedClaim": (BadCredential, "AWS does not take this token, or not again. Try again, with a fresh one."),
    "IDPCommunicationError": (
        ProviderUnavailable,
        "AWS could not reach this broker to read its keys. Whoever runs it must see that its address answers from outside.",
    ),
    "RegionDisabledException": (
        PermissionMissing,
        "Activate this region in your account (Account → AWS Regions), or choose another backend.",
    ),
    "MalformedPolicyDocument": (InvalidOrder, "The limits that were asked for are wrong; that is an error of ours."),
    "PackedPolicyTooLarge": (InvalidOrder, "The limits that were asked for are too long; that is an error of ours."),
    "ExpiredToken": (BadCredential, "The credential has ended. Sign in again."),
    "RequestExpired": (BadCredential, "The credential has ended, or the clock of this broker is wrong."),
    "InvalidClientTokenId": (BadCredential, "There is no such access key, or it was switched off. Make a new one."),
    "AuthFailure": (BadCredential, "The access key is wrong, or was switched off. Make a new one."),
    "UnrecognizedClientException": (BadCredential, "There is no such access key. Make a new one."),
    "SignatureDoesNotMatch": (BadCredential, "The secret does not belong to this access key. Enter both again."),
    "OptInRequired": (PermissionMissing, "Your account is not activated for EC2 here yet. Finish its registration."),
    "PendingVerification": (ProviderUnavailable, "AWS is still verifying your account. Try again later."),
    "Blocked": (PermissionMissing, "AWS has blocked your account for launching. Ask its support."),
    "OperationNotPermitted": (
        PermissionMissing,
        "Somebody has protected this machine from being ended. Take that off in the EC2 console (Actions → Instance settings → "
        "Change termination protection); it is ended then.",
    ),
    "InvalidAMIID.NotFound": (InvalidOrder, "The image that machines start from is gone. Launch again in a while."),
    "InvalidAMIID.Unavailable": (InvalidOrder, "The image that machines start from is gone. Launch again in a while."),
    "InvalidAMIID.Malformed": (InvalidOrder, "AWS publishes something else than an image there. Try again tomorrow."),
    "InvalidGroup.NotFound": (ProviderUnavailable, "AWS does not show yet what it has just made. Try again."),
    "InvalidSecurityGroupID.NotFound": (ProviderUnavailable, "AWS does not show yet what it has just made. Try again."),
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": (
        PermissionMissing,
        "Your account has never had a spot machine. Run `aws iam create-service-linked-role --aws-service-name "
        "spot.amazonaws.com` there once, or choose a machine that is not a spot machine.",
    ),
    "SpotMaxPriceTooLow": (NoCapacity, "Choose a machine that is not a spot machine."),
    "Unsupported": (NoCapacity, "This zone has no such machines. Choose another one."),
    "InsufficientFreeAddressesInSubnet": (NoCapacity, "The network of this zone is full. Choose another zone."),
    "InstanceTypeNotSupported": (NoCapacity, "This zone has no such machines. Choose another one."),
}
DENIED = (
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "UnauthorizedException",
    "AuthorizationError",
)
FULL = re.compile(r"Insufficient\w*Capacity\w*")
THROTTLED = re.compile(r"Throttl|RequestLimitExceeded|TooManyRequests")
BUSY = re.compile(r"Throttl|RequestLimitExceeded|TooManyRequests|Unavailable|Internal(Failure|Error|Server)")


@contextmanager
def meant(call: str, *, answers: bool = True) -> Iterator[None]:
    """Raise the SDK's exceptions within as one of ours; `call` is AWS's own name of what was asked.

    Without `answers` what AWS itself has answered, a ClientError, passes as it is.
    """
    try:
        yield
    except ClientError as refusal:
        if not answers:
            raise
        raise of_an_answer(call, refusal) from None  # the SDK's exceptions carry the whole answer
    except (HTTPClientError, ConnectionError) as error:
        raise ProviderUnavailable(f"AWS did not answer ({type(error).__name__}). Try again later.") from None
    except ParamValidationError:
        raise InvalidOrder(
            f"{call} was asked with parameters that AWS does not have; that is an error of ours."
        ) from None
    except (BotoCoreError, ValueError) as error:
        raise ProviderUnavailable(f"AWS's answer makes no sense ({type(error).__name__}). Try again later.") from None


def code_of(refusal: ClientError) -> str:
    """AWS's own short name for it."""
    return str(refusal.response.get("Error", {}).get("Code", ""))


def words_of(refusal: ClientError) -> str:
    """What AWS said, on one line, without what only AWS can read."""
    said = str(refusal.response.get("Error", {}).get("Message", "")).partition("Encoded authorization failure")[0]
    return " ".join(said.split())[:WORDS_MOST].rstrip(". ")


def lacking(refusal: ClientError) -> str:
    """The action that was not permitted, where AWS names it; else empty."""
    found = re.search(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z]+)", words_of(refusal))
    return found[1] if found else ""


def of_an_answer(call: str, refusal: ClientError) -> ProviderError:
    """What to raise for this answer to this call."""
    code, words = code_of(refusal), words_of(refusal)
    if quota := quotas.reached(code):
        return quota
    call = lacking(refusal) or call
    status = refusal.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    kind, advice = _advice(call, code, words, status)
    return kind(f"AWS answered “{code}”{f' ({words})' if words else ''}. {advice}")


def _advice(call: str, code: str, words: str, status: int) -> tuple[type[ProviderError], str]:
    if code == "InvalidIdentityToken":
        told = next((advice for part, advice in SIGN_IN.items() if part in words.lower()), MEANT[code][1])
        return BadCredential, told
    if code in MEANT:
        return MEANT[code]
    if code in DENIED and call == "sts:AssumeRoleWithWebIdentity":
        return BadCredential, (
            "There is no role in this account that trusts this broker for you: the account number is another one, the "
            f"stack is missing, or it was made for somebody else. {UPDATE}, signed in to the account you mean."
        )
    if code in DENIED:
        return PermissionMissing, f"{call} is not permitted. {UPDATE}."
    if FULL.fullmatch(code):
        return NoCapacity, "AWS has no such machine free there right now. Choose another one, or try again later."
    if BUSY.search(code) or status >= 500 or status == 429:
        return ProviderUnavailable, "That is for now only. Try again later."
    return InvalidOrder, f"{call} cannot be asked in this way; that is an error of ours."
