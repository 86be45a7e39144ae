"""What another hub may answer, drawn once. The docstring speaks to the person, `reason` to the metric.

PeerError
├── Full             it has no room now, or asks us to come more seldom
├── Refused          it does not run this, or not for us
├── BuildFailed      the build failed there
├── LaunchFailed     it was built, and could not be started
├── Silent           it says nothing any more, or goes on for ever
├── Vanished         it cannot be reached, or the stream was cut
└── NotBelieved      what it says is not what a hub says, or leads where it may not
"""

from __future__ import annotations


class PeerError(Exception):
    """That hub could not run it."""

    reason = "peer"

    def __init__(self, message: str | None = None) -> None:
        """With a message, that is what the person reads; without, the docstring's first paragraph."""
        super().__init__(message or " ".join((type(self).__doc__ or "").split("\n\n")[0].split()))


class Full(PeerError):
    """It has no room at the moment."""

    reason = "full"

    def __init__(self, message: str | None = None, *, seconds: float | None = None) -> None:
        """`seconds`: when it may be asked again, where it said so."""
        super().__init__(message)
        self.seconds = seconds


class Refused(PeerError):
    """It does not run this repository."""

    reason = "refused"


class BuildFailed(PeerError):
    """The build failed there."""

    reason = "build_failed"


class LaunchFailed(PeerError):
    """It was built there and could not be started."""

    reason = "launch_failed"


class Silent(PeerError):
    """It has said nothing for too long."""

    reason = "silent"


class Vanished(PeerError):
    """It cannot be reached any more."""

    reason = "vanished"


class NotBelieved(PeerError):
    """It does not answer as a hub does."""

    reason = "not_believed"
