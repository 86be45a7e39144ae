"""The way into a session at a peer, for whoever launched it: its address there, with what they wanted opened, and its token."""

from __future__ import annotations

from dataclasses import dataclass, field

from broker import sessions
from broker.forwarding import rows
from broker.models import Launch, State
from broker.service import Service
from federation.binderhub import WayIn


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where somebody enters."""

    url: str = field(repr=False)
    """Where the session is; ends in a slash."""
    page: str = field(repr=False)
    """What was asked to be opened in it, without the token."""
    token: str = field(repr=False)
    way_in: WayIn = field(repr=False)
    moved: bool = False
    """It runs at another hub than it was first sent to: whose terms apply has not been seen."""

    @property
    def with_token(self) -> str:
        """Where a browser is sent."""
        return sessions.tokened(self.page, self.token)

    def opening(self, path: str) -> str:
        """The same for another path of the session."""
        return sessions.tokened(sessions.below(self.url, sessions.inside(f"/{path}")), self.token)


def entry(service: Service, launch: Launch) -> Entry | None:
    """The way in; None unless it is ready at a peer and not being stopped. One short look at the table."""
    if launch.state is not State.FORWARDED or not launch.runs or launch.stop_wanted:
        return None
    forward = rows.current(service, launch.id)
    found = rows.way_in(service, forward) if forward else None
    if found is None:
        return None
    page = sessions.below(found.url, sessions.entry(launch.path)) if launch.path else found.url
    moved = rows.of_launch(service, launch.id)[0].peer != launch.backend
    return Entry(url=found.url, page=page, token=found.token, way_in=found, moved=moved)
