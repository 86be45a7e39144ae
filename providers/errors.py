"""What a cloud may answer, as the broker needs to hear it: each class says what to do next.

ProviderError
├── NoCapacity            try another offer
├── QuotaExceeded         say which quota; trying again does not help
├── BadCredential         ask the person to sign in again
├── PermissionMissing     say which permission, and how to grant it
├── InvalidOrder          the order itself is wrong; do not repeat it
└── ProviderUnavailable   come back later; nothing is known about what happened
"""


class ProviderError(Exception):
    """The cloud refused. The message is one sentence for the person; it never carries a secret."""

    reason = "provider"


class NoCapacity(ProviderError):
    """Nothing of this kind is free right now. Another offer may be."""

    reason = "no_capacity"


class QuotaExceeded(ProviderError):
    """A limit of the account is reached. The message names the quota."""

    reason = "quota"


class BadCredential(ProviderError):
    """The cloud does not accept the credential, or it has expired."""

    reason = "credential"


class PermissionMissing(ProviderError):
    """The credential is good but may not do this. The message names the permission."""

    reason = "permission"


class InvalidOrder(ProviderError):
    """The cloud will never accept this order as it stands."""

    reason = "invalid_order"


class ProviderUnavailable(ProviderError):
    """No answer, or none that can be trusted. The call may or may not have taken effect: repeat it with the same order."""

    reason = "unavailable"
