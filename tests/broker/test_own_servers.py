"""Running on a server that the person made: only where they say so, for nothing, and by a line that they paste."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from fastapi.testclient import TestClient

from broker import app, bootstrap, connections, errors, launches, menus, orders, parcels, people, placement, wishes
from broker.cli import launching
from broker.models import Launch, State
from providers.fake.driver import KINDS
from tests.broker import guests
from tests.broker.conftest import AGENT, Bench, Clock
from tests.broker.test_budgets import all_orders
from tests.doubles.desk_cloud import DeskCloud, offer

HERE = "http://localhost:8000"
ADA = "ada0000000000000"
MINE = "desk/server:1"


class Lent(DeskCloud):
    """A cloud on the desk that people bring their own accounts to."""

    kinds = (KINDS["kept"],)


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Iterator[Bench]:
    made = make_bench(Lent(), identities=(guests.IDENTITY,), sign_in_idle_hours=24)
    made.cloud.menu = [
        offer("bought", "0.10"),
        offer("server:1", "0", taken=True),
        offer("server:2", "0", taken=True),
    ]
    yield made


@pytest.fixture
def ada(bench: Bench) -> TestClient:
    client = TestClient(app.create(bench.at), base_url=HERE, headers={"Origin": HERE, "Accept": "text/html"})
    client.cookies.set("anybinder-sign-in", guests.cookie(bench.at))
    connections.connect(bench.at, people.known(bench.at, ADA), "backend:desk", Lent.kinds, "kept", {"key": "a-key"})
    return client


def request(bench: Bench, backend: str = MINE, **wish: Any) -> Launch:
    wanted = wishes.Wish(**{"repo": bench.repo, "backend": backend, "name": "mine", "consent": True, **wish})
    return launches.request(bench.at, people.known(bench.at, ADA), wanted)[0]


def shown(ada: TestClient, launch: Launch) -> dict[str, Any]:
    return ada.get(f"/api/launches/{launch.id}").raise_for_status().json()


# --- who chooses it -----------------------------------------------------------------------------------------------------


def test_nobodys_server_is_run_on_unless_they_say_so_although_it_costs_nothing(ada: TestClient, bench: Bench) -> None:
    launch = bench.advance(request(bench, "desk"))
    assert bench.order(launch).offer["id"] == "bought"


def test_it_is_never_what_a_second_or_a_last_try_comes_to(ada: TestClient, bench: Bench) -> None:
    bench.cloud.menu = bench.cloud.menu[1:]
    launch = bench.until_stopped(request(bench, "desk"))
    assert launch.reason == errors.NoOfferLeft.reason and bench.cloud.bought == []


def test_the_one_that_was_chosen_is_run_on_and_no_other_and_nothing_is_bought(ada: TestClient, bench: Bench) -> None:
    launch = bench.advance(request(bench, hedge=True, budget="1"))
    order = bench.order(launch)
    assert (order.offer["id"], order.promised, launch.hedged) == ("server:1", Decimal(0), False)
    assert "Nothing is bought. server:1 waits for you: paste the line" in bench.said(launch)[-1]
    launches.stop(bench.at, launch.id)
    bench.until_stopped(launch)
    assert all_orders(bench)[0].settled == Decimal(0)


def test_it_asks_for_consent_as_whatever_runs_as_the_person_does(ada: TestClient, bench: Bench) -> None:
    with pytest.raises(errors.ConsentNeeded):
        request(bench, consent=False)
    form = {"repo": bench.repo, "backend": MINE}
    asked = ada.post("/launch", data=form).text
    assert "It runs as you on your server:" in asked and "its user data among it" in asked
    assert f'name="backend" value="{MINE}"' in asked


def test_one_that_has_gone_or_is_too_small_is_a_sentence(ada: TestClient, bench: Bench) -> None:
    launch = request(bench)
    bench.cloud.menu = [offer("bought"), offer("server:2", "0", taken=True)]
    ended = bench.until_stopped(launch)
    assert ended.message.startswith("The server that you chose is not there any more")
    assert bench.cloud.bought == []


def test_what_is_to_be_bought_cannot_be_chosen_in_its_place(ada: TestClient, bench: Bench) -> None:
    assert bench.until_stopped(request(bench, "desk/bought")).reason == errors.NoOfferLeft.reason
    assert bench.cloud.bought == []


def test_a_launch_that_goes_on_elsewhere_leaves_the_choice_behind(ada: TestClient, bench: Bench) -> None:
    launch = request(bench)
    assert launch.offer == "server:1"
    from broker.launches import elsewhere

    launch.elsewhere = ["desk"]
    moved = elsewhere.go_on(bench.at, launch, errors.NoOfferLeft())
    assert moved is not None and moved.columns["offer"] == ""


# --- what the form shows -------------------------------------------------------------------------------------------------


def test_the_form_has_each_with_what_it_means_and_the_places_own_price_is_that_of_a_machine_to_buy(
    ada: TestClient, bench: Bench
) -> None:
    ada.get("/")
    menus.fill(bench.at)
    page = ada.get(f"/?backend={MINE}").text
    assert "Desk: server:1" in page and "Desk: server:2" in page
    assert "nothing is bought" in page and "read your files there" in page
    assert marked(page) == [MINE]
    own, *_ = [each for each in placement.places(bench.at, people.known(bench.at, ADA)) if each.name == "desk"]
    assert own.price_per_hour == Decimal("0.10")
    assert "Go on to Desk: server:1" not in page


def test_a_link_to_one_that_is_not_known_marks_no_other_place_in_its_stead(ada: TestClient, bench: Bench) -> None:
    page = ada.get("/?backend=desk/server:9").text
    assert "That server of yours is not known here yet" in page and marked(page) == []


def marked(page: str) -> list[str]:
    """The places that are chosen in the form."""
    return re.findall(r'name="backend" [^>]*value="([^"]+)" [^>]*\bchecked', page)


# --- the line ------------------------------------------------------------------------------------------------------------


def test_the_line_is_shown_to_its_owner_while_it_is_waited_for(ada: TestClient, bench: Bench) -> None:
    launch = bench.advance(request(bench))
    page = ada.get(f"/launches/{launch.id}").text
    assert "Waiting for your server" in page and "<textarea" in page and "never stopped, changed or deleted" in page
    line, token = shown(ada, launch)["paste"], bootstrap.enrolment_token(bench.at, bench.order(launch).id)
    printed, told, piped, *rest = shlex.split(line)[1:]
    assert (printed, piped) == ("%s", "|") and rest[:2] == ["python3", "-Ic"]
    assert json.loads(told)["token"] == token and token not in "".join(rest)
    assert json.loads(told)["files"]["guest.py"] == parcels.named()["guest.py"].sha256
    assert line.startswith(" ") and "\n" not in line and len(line) < 2000
    stranger = TestClient(app.create(bench.at), base_url=HERE)
    assert token not in stranger.get(f"/launches/{launch.id}").text
    bench.enrol(launch, AGENT)
    assert "paste" not in shown(ada, launch)
    assert "<textarea" not in ada.get(f"/launches/{launch.id}").text


def test_the_line_is_gone_with_the_wish_and_never_there_for_a_machine_that_is_bought(
    ada: TestClient, bench: Bench
) -> None:
    launch = bench.advance(request(bench))
    launches.stop(bench.at, launch.id)
    assert "paste" not in shown(ada, launch)
    bench.until_stopped(launch)
    assert "paste" not in shown(ada, bench.advance(request(bench, "desk")))


def test_a_line_that_nobody_pastes_ends_the_launch_with_a_sentence_and_buys_nothing(
    ada: TestClient, bench: Bench, clock: Clock
) -> None:
    launch = bench.advance(request(bench))
    clock.move(minutes=bench.at.settings.boot_minutes, seconds=1)
    ended = bench.until_stopped(launch)
    assert ended.state is State.STOPPED and ended.message.startswith("The line was not pasted")
    assert [order.offer["id"] for order in all_orders(bench)] == ["server:1"]
    assert orders.opened(bench.at, launch) == []


def test_the_command_line_prints_it_once(ada: TestClient, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    launch = bench.advance(request(bench))

    class Hub:
        """The broker, as the command line asks it."""

        def call(self, method: str, path: str) -> dict[str, Any]:
            return ada.request(method, path).raise_for_status().json()

        def events(self, launch_id: str) -> Iterator[dict[str, Any]]:
            yield from bench.events(launch)
            yield {**bench.events(launch)[-1], "phase": "failed", "message": "That was all."}

    told = shown(ada, launch)
    capsys.readouterr()
    launching._show(Hub(), told)
    assert capsys.readouterr().out == f"{told['paste']}\n"
