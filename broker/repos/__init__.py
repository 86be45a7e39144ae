"""Repositories: what a person asks for, and the commit it is.

    spec = repos.RepoSpec.parse("https://github.com/o/r/tree/main/notebooks")
    resolved = repos.Resolver(settings).resolve(spec)

A new host is one file with one RepoProvider, and one line below. The order is the one in which people are offered them;
a pasted address is shown to `git`, which takes every one, after all others.
"""

from __future__ import annotations

from typing import Any

from broker.repos.base import RepoProvider, RepoSpec, Resolved, providers, register
from broker.repos.bitbucket import Bitbucket
from broker.repos.ckan import CKAN
from broker.repos.dataverse import Dataverse
from broker.repos.docker import Docker
from broker.repos.errors import RepoError
from broker.repos.figshare import Figshare
from broker.repos.forges import Forge
from broker.repos.gist import Gist
from broker.repos.git import Git
from broker.repos.github import GitHub
from broker.repos.gitlab import GitLab
from broker.repos.hydroshare import HydroShare
from broker.repos.osf import OSF
from broker.repos.resolver import Resolver
from broker.repos.swh import SoftwareHeritage
from broker.repos.zenodo import Zenodo

__all__ = ["Forge", "RepoError", "RepoProvider", "RepoSpec", "Resolved", "Resolver", "display", "providers", "register"]

PROVIDERS = (
    GitHub,
    Gist,
    Git,
    GitLab,
    Bitbucket,
    Zenodo,
    Figshare,
    HydroShare,
    Dataverse,
    CKAN,
    OSF,
    SoftwareHeritage,
    Docker,
)

for _provider in PROVIDERS:
    register(_provider())


def display() -> list[dict[str, Any]]:
    """BinderHub's `/api/repoproviders`, the default first."""
    return [provider.display() for provider in providers.values()]
