"""Other hubs that a person connects with a token of theirs: kept, checked, and said how it is withdrawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from broker import connections, errors, peers, people, settings
from broker import service as services
from broker.models import Connection
from providers import errors as clouds
from tests.broker.conftest import Bench
from tests.doubles.hub_double import HubDouble

ADA, TOKEN = people.Person(id="ada"), "6b392d948205462497c93c766aa16ec0"


@pytest.fixture
def hub() -> Iterator[HubDouble]:
    with HubDouble() as double:
        double.scopes[TOKEN] = ["servers!user", "access:servers!user"]
        yield double


@pytest.fixture
def at(make_bench: Callable[..., Bench], hub: HubDouble) -> services.Service:
    return make_bench(peers=[{"name": "physics", "url": hub.url}]).at


def connect(at: services.Service) -> Connection:
    kinds = peers.kinds(at, ADA, "physics")
    return connections.connect(at, ADA, peers.target_of("physics"), kinds, "token", {"token": TOKEN})


def test_a_token_that_is_enough_works_and_is_shown_to_its_hub_only(at: services.Service, hub: HubDouble) -> None:
    found = peers.check(at, ADA, connect(at).id)
    assert (found.works, found.who, found.trouble) == (True, "ada", "")
    assert [row["name"] for row in found.findings] == ["servers!user", "access:servers!user"]
    assert hub.shown == [("/hub/api/user", f"token {TOKEN}")]


@pytest.mark.parametrize(
    ("scopes", "works", "said"),
    [
        (["access:servers!user"], False, "servers!user"),
        (["servers!user", "access:servers!user", "tokens!user"], True, "More than is needed: tokens!user=ada"),
        (["servers", "access:servers!user"], True, "More than is needed: servers"),
        (["servers!user", "access:servers!user", "admin:users"], True, "More than is needed: admin:users"),
    ],
)
def test_what_lacks_and_what_is_too_much_is_said(
    at: services.Service, hub: HubDouble, scopes: list[str], works: bool, said: str
) -> None:
    hub.scopes[TOKEN] = scopes
    found = peers.check(at, ADA, connect(at).id)
    assert found.works is works
    assert said in found.trouble + str([row["name"] for row in found.findings])


@pytest.mark.parametrize(
    ("scopes", "works"),
    [
        (["servers!user", "access:servers!user"], False),
        (["servers!user", "access:servers!user", "access:services!service=notes"], False),
        (["servers!user", "access:servers!user", "access:services!service=binder"], True),
        (["servers!user", "access:servers!user", "access:services"], True),
    ],
)
def test_a_binderhub_that_is_a_service_of_its_hub_has_to_be_entered_too(
    make_bench: Callable[..., Bench], hub: HubDouble, scopes: list[str], works: bool
) -> None:
    at = make_bench(peers=[{"name": "physics", "url": hub.url, "binder_url": f"{hub.url}/services/binder"}]).at
    assert "access:services!service=binder" in peers.guide(at, ADA, "physics", "token").steps[0]
    hub.scopes[TOKEN] = scopes
    found = peers.check(at, ADA, connect(at).id)
    assert found.works is works
    assert ("access:services!service=binder" in found.trouble) is not works


def test_a_token_that_is_not_taken_and_a_hub_that_is_none_are_said(at: services.Service, hub: HubDouble) -> None:
    connection = connect(at)
    hub.scopes.clear()
    refused = peers.check(at, ADA, connection.id)
    assert refused.works is False
    assert "Make a new one" in refused.trouble
    hub.sense = False
    with pytest.raises(clouds.ProviderUnavailable, match="does not answer as a JupyterHub does"):
        peers.check(at, ADA, connection.id)


def test_a_redirect_takes_no_token_along(at: services.Service, hub: HubDouble) -> None:
    with HubDouble() as other:
        hub.redirect = f"{other.url}/hub/api/user"
        with pytest.raises(clouds.ProviderUnavailable):
            peers.check(at, ADA, connect(at).id)
        assert other.shown == []


def test_what_is_told_names_the_hubs_own_page(at: services.Service, hub: HubDouble) -> None:
    guide = peers.guide(at, ADA, "physics", "token")
    assert guide.link == f"{hub.url}/hub/token"
    assert hub.url in guide.revoke[0]
    assert peers.listed(at) == {"physics": hub.url.removeprefix("http://")}
    assert peers.kinds(at, people.ANONYMOUS, "physics") == ()
    with pytest.raises(errors.NotFound):
        peers.guide(at, ADA, "chemistry", "token")


def test_tokens_are_sent_in_the_clear_to_nobody() -> None:
    with pytest.raises(ValueError, match="https"):
        settings.PeerSetting(name="x", url="http://hub.uni.example")
    assert (
        settings.PeerSetting(name="x", url="https://hub.uni.example/jupyter/").url == "https://hub.uni.example/jupyter"
    )
