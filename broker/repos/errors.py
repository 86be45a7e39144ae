"""What can go wrong between what a person typed and a commit. Each sentence says what to do.

RepoError
├── BadSpec              cannot be read as a repository
├── NotAllowed           may not be asked: protocol, credentials in the address, a private network
├── NotFound             no such repository, or a private one
│   └── RefNotFound      the repository is there, the branch, tag or commit is not
├── TooBig               more than this broker will fetch to be sure
├── TokenRefused         the host does not take the person's own token
├── RateLimited          the host wants us to wait
└── HostUnavailable      the host does not answer, or makes no sense
    └── HostTimeout      it does not answer in time
"""

from __future__ import annotations

from broker import errors


class RepoError(errors.BrokerError):
    """This repository cannot be used. Check its address."""

    status_code, reason = 400, "repo"


class BadSpec(RepoError):
    """That is not the address of a repository. Paste the address of its web page, or write owner/name for GitHub."""

    reason = "bad_spec"


class NotAllowed(RepoError):
    """This broker may not ask that address. Use the repository's public https address."""

    reason = "repo_not_allowed"


class NotFound(RepoError):
    """There is no such repository, or it is private. Check its address, and that it is public."""

    status_code, reason = 404, "repo_not_found"


class RefNotFound(NotFound):
    """The repository has no such branch, tag or commit. Check the name, or leave it empty for the default branch."""

    reason = "ref_not_found"


class TooBig(RepoError):
    """This repository is larger than this broker may fetch. Use a smaller one, or name a branch instead of a commit."""

    status_code, reason = 413, "repo_too_big"


class TokenRefused(RepoError):
    """The host of this repository does not take your token any more. Connect your account there again."""

    status_code, reason = 403, "repo_token"


class RateLimited(RepoError):
    """The host of this repository asks us to wait. Try again in some minutes."""

    status_code, reason = 429, "repo_rate_limited"


class HostUnavailable(RepoError):
    """The host of this repository does not answer. Try again in a moment."""

    status_code, reason = 502, "repo_host"


class HostTimeout(HostUnavailable):
    """The host of this repository takes too long to answer. Try again in a moment."""

    status_code = 504
