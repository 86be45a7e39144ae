"""What opens a private repository for one person."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker.environments import unlocking

if TYPE_CHECKING:
    from broker.repos.base import RepoSpec


@dataclass(frozen=True, kw_only=True)
class Credential:
    """One person's right to read at one host. Shows no secret in its `repr`."""

    prefix: str
    connection_id: str
    origin: str
    """Where git may show it, and nowhere else."""
    user: str
    """What git calls the person."""
    secret: str = field(repr=False)
    api_user: str = ""
    """What the API calls the person, where it wants a user and a password; else the secret is a bearer's token."""

    @property
    def authorization(self) -> str:
        """The header for the host's API."""
        if self.api_user:
            return f"Basic {base64.b64encode(f'{self.api_user}:{self.secret}'.encode()).decode()}"
        return f"Bearer {self.secret}"

    @property
    def key(self) -> unlocking.Key:
        """The same for git."""
        return unlocking.Key(origin=self.origin, user=self.user, secret=self.secret)


Opener = Callable[["RepoSpec"], Credential | None]
"""Finds what opens a repository, once it has turned out that it is not for everybody; None where the person has nothing."""
