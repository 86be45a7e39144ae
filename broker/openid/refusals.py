"""Why somebody was not signed in. The docstring speaks to the person."""

from __future__ import annotations

from broker import errors


class Unavailable(errors.BrokerError):
    """The identity provider cannot be reached right now. Try again in a minute."""

    status_code, reason = 503, "identity_down"

    def __init__(self, title: str, what: str) -> None:
        """`what`: what it was asked for."""
        super().__init__(
            f"{title} does not answer as it should right now ({what}), so nobody could be signed in with it. "
            "Nothing is lost: try again in a minute."
        )


class Refused(errors.BrokerError):
    """What the identity provider answered cannot be believed, so nobody was signed in. Try again; if it goes on, tell whoever
    runs this broker."""

    status_code, reason = 502, "identity_refused"


class Cancelled(errors.BrokerError):
    """The sign-in was cancelled. Nothing has changed."""

    status_code, reason = 403, "sign_in_cancelled"


class StartAgain(errors.BrokerError):
    """This sign-in was not begun in this browser, took too long, or is over already. Begin it again here."""

    status_code, reason = 400, "sign_in_stale"


class NotRenewable(Refused):
    """There is nothing to renew this sign-in with."""
