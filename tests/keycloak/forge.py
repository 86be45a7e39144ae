"""A GitLab whose tokens are another Keycloak realm's own: it opens a project to whom that realm says a token is."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from tests.doubles.gitlab_double import GitLabDouble, GitLabHandler
from tests.servers.keycloak import Keycloak


class Forge(GitLabDouble):
    """`members["group/project"]` are the names of those who may read it; everybody else is told that it is not there."""

    def __init__(self, root: Path, server: Keycloak, realm: str) -> None:
        super().__init__(root)
        self._http.RequestHandlerClass = type("Handler", (ForgeHandler,), {"double": self})
        self.members: dict[str, set[str]] = {}
        self.realm_url = server.issuer(realm)

    def hide(self, project: str, *members: str) -> None:
        """Private from now on, but for these."""
        self.private.add(project)
        self.members[project] = set(members)


class ForgeHandler(GitLabHandler):
    double: Forge

    def whose(self) -> str:
        """Whom the realm knows by the token that was shown; empty where it does not take it."""
        token = self.sign()[1]
        asked = f"{self.double.realm_url}/protocol/openid-connect/userinfo"
        answer = httpx.get(asked, headers={"Authorization": f"Bearer {token}"}) if token else None
        return str(answer.json()["preferred_username"]) if answer is not None and answer.status_code == 200 else ""

    def is_known(self) -> bool:
        return bool(self.whose())

    def opens(self, repo: str) -> bool:
        return self.whose() in self.double.members.get(repo, ())

    def own(self, what: str) -> None:
        if what == "user" and (name := self.whose()):
            self.answer(200, json.dumps({"id": 1, "username": name}).encode())
        else:
            self.say(401, "401 Unauthorized")  # for `self` too: this is no personal access token
