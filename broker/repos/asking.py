"""What a provider needs to look something up, handed in whole."""

from __future__ import annotations

from dataclasses import dataclass

from broker import settings
from broker.repos import http, remotes


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Settings, and the two ways of asking: a web server, a git repository."""

    settings: settings.Settings
    http: http.Http
    remotes: remotes.Remotes
