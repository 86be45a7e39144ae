"""What can go wrong, drawn once. The docstring speaks to the person, `reason` to the metric, `status_code` to HTTP.

Raise them anywhere; they are caught in two places: `app.py` (answers) and `launches.advance` (fails the launch).

BrokerError
├── BadRequest              what was typed cannot be used
│   └── BadField            one field of a form cannot
├── NotSignedIn             no key, no cookie
├── SignInAgain             too long ago
├── NotAllowed              another origin asks, or the person may not
│   ├── ConsentNeeded       the person has not yet agreed to run this commit
│   ├── SpecBanned          the operator does not let this repository run
│   └── NotForPeers         it is private, and that peer makes public what it runs
├── NotFound                no such launch, or not yours
├── NameTaken               the name runs with other parameters
├── CannotExtend            a session cannot last that much longer
├── CannotDownload          a session's files cannot be had
│   ├── DownloadTooLarge    they are more than may be downloaded at once
│   ├── DownloadUnderWay    they are being downloaded already
│   ├── FilesGone           the session has ended
│   └── OutOfReach          its computer does not answer
├── TooOften                one person asks too often
├── RepoQuota               too many sessions of this repository run
├── LaunchFailed            a step cannot go on; ends this launch
│   ├── NoBackend           nothing can take it
│   ├── PeersFailed         every peer that could take it was tried
│   ├── CredentialTooShort  the account's credential ends before the session could be ended
│   ├── NobodyWaits         who asked for it has left while it waited for a seat
│   ├── NoOfferLeft         every offer was tried
│   ├── BudgetExceeded      what is left of the budget buys none of them
│   ├── BootTimeout         the instance never reported
│   ├── BuildTimeout        the build took too long
│   ├── InstanceLost        the instance ended by itself
│   ├── ServerEnded         the server ended before anybody was in it
│   └── AgentFailed         the agent says why
├── LeaseLost               somebody else advances this launch now
└── EnrolmentRefused        wrong, spent or stolen token
"""

from __future__ import annotations

import datetime as dt


class BrokerError(Exception):
    """Something went wrong in the broker. Try again; if it goes on, tell whoever runs it."""

    status_code = 500
    reason = "broker"

    def __init__(self, message: str | None = None) -> None:
        """With a message, that is what the person reads; without, the docstring's first paragraph."""
        super().__init__(message or " ".join((type(self).__doc__ or "").split("\n\n")[0].split()))


class BadRequest(BrokerError):
    """That cannot be used. Check what was typed."""

    status_code, reason = 400, "bad_request"


class BadField(BadRequest):
    """One field of a form holds what it cannot."""

    def __init__(self, field: str, sentence: str) -> None:
        """The sentence says what the field wants; what was typed is not repeated: it may be a secret."""
        super().__init__(sentence)
        self.field = field


class NotSignedIn(BrokerError):
    """Open the link that `anybinder up` printed: it holds the key to this broker."""

    status_code, reason = 401, "not_signed_in"


class NotAllowed(BrokerError):
    """That is not allowed from here. Open the page itself and try again."""

    status_code, reason = 403, "not_allowed"


class ConsentNeeded(NotAllowed):
    """This commit runs as you on this computer. Read what that means and agree to it first."""

    reason = "consent"


class SignInAgain(BrokerError):
    """It is a while since you signed in. Sign in again, then repeat this: nothing is lost."""

    status_code, reason = 401, "sign_in_again"

    def __init__(self, message: str | None = None, *, max_age: int | None = None, level: str = "") -> None:
        """`max_age`: how old in seconds a sign-in may be for it. `level`: the `acr` it needs, or several with spaces between."""
        super().__init__(message)
        self.max_age, self.level = max_age, level


class SpecBanned(NotAllowed):
    """Sorry, this repository is not allowed to launch. Please contact admins for more info!"""

    reason = "banned"

    def __init__(self, spec: str) -> None:
        """BinderHub's sentence."""
        super().__init__(f"Sorry, {spec} is not allowed to launch. Please contact admins for more info!")


class NotForPeers(NotAllowed):
    """What is launched there becomes public record, and this repository is private. Choose a place that publishes nothing."""

    reason = "private"


class NotFound(BrokerError):
    """There is no such launch, or it is not yours. Your sessions are listed under "My sessions"."""

    status_code, reason = 404, "not_found"


class NameTaken(BrokerError):
    """A launch of this name is running with other parameters. Stop it, or choose another name."""

    status_code, reason = 409, "name_taken"


class CannotExtend(BrokerError):
    """This session cannot be extended. Save your work, and launch it again."""

    status_code, reason = 409, "cannot_extend"


class CannotDownload(BrokerError):
    """The files of this session cannot be downloaded from here."""

    status_code, reason = 409, "cannot_download"


class DownloadTooLarge(CannotDownload):
    """The files of this session are more than can be downloaded at once. Download folders one by one, from inside the session."""

    status_code, reason = 413, "download_too_large"


class DownloadUnderWay(CannotDownload):
    """The files of this session are being downloaded already. Wait for that, or cancel it in the browser that does it."""

    status_code, reason = 429, "download_under_way"


class FilesGone(CannotDownload):
    """This session has ended, and its files went with it: nothing can be downloaded any more. You can launch it again."""

    status_code, reason = 410, "files_gone"


class OutOfReach(CannotDownload):
    """The computer of this session does not answer right now. Try again in a moment."""

    status_code, reason = 503, "out_of_reach"


class TooOften(BrokerError):
    """That was asked for too often in a short time. Wait a minute, then try again."""

    status_code, reason = 429, "too_often"


class RepoQuota(BrokerError):
    """Too many users running this repository! Try again soon."""

    status_code, reason = 429, "repo_quota"

    def __init__(self, repo_url: str) -> None:
        """BinderHub's sentence."""
        super().__init__(f"Too many users running {repo_url}! Try again soon.")


class LaunchFailed(BrokerError):
    """The launch cannot go on."""

    status_code, reason = 502, "failed"


class NoBackend(LaunchFailed):
    """Nothing here can run this. Choose another place to run."""

    status_code, reason = 409, "no_backend"


class PeersFailed(LaunchFailed):
    """Every hub that could run this was tried, and none of them did. Try again later, or choose another place."""

    reason = "peers"


class CredentialTooShort(LaunchFailed):
    """The account's credential ends before this session could be ended with it."""

    status_code, reason = 409, "credential_short"

    def __init__(self, ends_at: dt.datetime) -> None:
        """Says when, and what to do."""
        super().__init__(
            f"The credential of your account ends on {ends_at:%Y-%m-%d at %H:%M} UTC, before this session could be ended "
            "with it. Ask for fewer hours, or connect the account again with a credential that lasts longer."
        )


class NobodyWaits(LaunchFailed):
    """Nobody was seen waiting for it any more, so it has given up its turn. Open the link again."""

    status_code, reason = 409, "left"


class NoOfferLeft(LaunchFailed):
    """Everything that could run this was tried, and none of it could be had. Try again later, or somewhere else."""

    reason = "no_offer"


class BudgetExceeded(LaunchFailed):
    """Nothing that could run this fits the budget. Raise it, or ask for fewer hours or less."""

    status_code, reason = 402, "budget"


class BootTimeout(LaunchFailed):
    """The machine was started but never reported. It has been ended; try again, or somewhere else."""

    reason = "boot_timeout"

    @classmethod
    def told(cls, *, ended: str = "", said: str = "") -> str:
        """The same with why it ended, where it did by itself, and what it said last, where its console shows that."""
        first = f"The machine ended before it reported ({ended.rstrip('.')})." if ended else str(cls())
        return f"{first} The last it said: “{said}”" if said else first


class BuildTimeout(LaunchFailed):
    """The build took longer than it may. Make the environment smaller, or ask for a longer limit."""

    reason = "build_timeout"


class InstanceLost(LaunchFailed):
    """The machine ended by itself before the session was ready."""

    reason = "instance_lost"


class ServerEnded(LaunchFailed):
    """The server on the machine ended before it could be used. The lines above say more."""

    reason = "server_ended"


class AgentFailed(LaunchFailed):
    """The build or the server failed on the machine."""

    reason = "build_failed"


class EnrolmentRefused(BrokerError):
    """This enrolment is refused: the token is wrong, spent, or its launch is over."""

    status_code, reason = 403, "enrolment"


class LeaseLost(BrokerError):
    """Somebody else advances this launch now; what was done here is not written down."""

    reason = "lease"
