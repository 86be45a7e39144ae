"""What a provider needs to look something up, handed in whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker import settings
from broker.repos import credentials, http, remotes

if TYPE_CHECKING:
    from broker.repos.base import RepoProvider


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Settings, and the two ways of asking: a web server, a git repository."""

    settings: settings.Settings
    http: http.Http
    remotes: remotes.Remotes
    credential: credentials.Credential | None = None
    """The right of the one person for whom it is asked, where it is not asked for everybody. Nothing learned is shared."""

    def api(self, provider: RepoProvider) -> str:
        """Where this host's interface answers, without a slash at its end."""
        return (self.settings.repo_host(provider.prefix).api or provider.api).rstrip("/")

    def url(self, provider: RepoProvider) -> str:
        """Where this host's pages and clones are, without a slash at its end."""
        return (self.settings.repo_host(provider.prefix).url or provider.url).rstrip("/")

    def token(self, provider: RepoProvider) -> str:
        """The operator's token for `api`, or nothing."""
        return self.settings.repo_host(provider.prefix).token.get_secret_value()
