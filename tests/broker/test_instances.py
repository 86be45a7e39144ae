"""The broker's end of the conversation with the agent."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from broker import bootstrap, crypto, errors, instances, launches
from broker.models import State
from tests.broker.conftest import AGENT, Bench


def enrolment(order_id: str, agent: str = AGENT) -> instances.Enrolment:
    return instances.Enrolment(order=order_id, agent=agent, nonce="c0ffee")


def test_an_agent_enrols_once_and_is_told_what_to_do(bench: Bench) -> None:
    launch = bench.advance(bench.request(path="index.ipynb"))
    task = bench.enrol(launch)
    assert task["launch"] == launch.id
    assert task["spec"]["commit"] == launch.commit
    assert task["spec"]["open"] == "index.ipynb"


def test_the_broker_proves_that_it_knows_the_token_without_saying_it(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    order = bench.order(launch)
    token = bootstrap.enrolment_token(bench.at, order.id)
    answer = instances.enrol(bench.at, token, enrolment(order.id))
    key = hashlib.sha256(token.encode()).digest()
    assert answer["proof"] == hmac.new(key, b"c0ffee", hashlib.sha256).hexdigest()
    assert token not in repr(answer)


def test_the_same_agent_may_ask_again_since_its_answer_may_have_been_lost(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    assert bench.enrol(launch)["session"] == bench.enrol(launch)["session"]


def test_a_second_agent_with_the_same_token_ends_the_instance(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    with pytest.raises(errors.EnrolmentRefused, match="used before"):
        bench.enrol(launch, agent="m" * 43)
    launch = bench.until_stopped(launch)
    assert launch.reason == "enrolled_twice"
    assert bench.cloud.instances_by_order == {}


@pytest.mark.parametrize("token", ["", "x", "0" * 64])
def test_a_wrong_token_is_refused_and_ends_nothing(bench: Bench, token: str) -> None:
    launch = bench.advance(bench.request())
    with pytest.raises(errors.EnrolmentRefused):
        instances.enrol(bench.at, token, enrolment(bench.order(launch).id))
    assert bench.launch(launch.id).state is State.STARTING


def test_the_token_of_one_order_does_not_enrol_another(bench: Bench) -> None:
    one, other = (bench.advance(bench.request()) for _ in range(2))
    token = bootstrap.enrolment_token(bench.at, bench.order(one).id)
    with pytest.raises(errors.EnrolmentRefused):
        instances.enrol(bench.at, token, enrolment(bench.order(other).id))


def test_an_agent_of_a_launch_that_is_over_is_refused(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    launches.stop(bench.at, launch.id)
    with pytest.raises(errors.EnrolmentRefused, match="over"):
        bench.enrol(launch)


def test_an_unknown_order_is_refused(bench: Bench) -> None:
    with pytest.raises(errors.EnrolmentRefused):
        instances.enrol(bench.at, "x", enrolment("nosuchorder"))


def test_a_repeated_report_adds_nothing(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    for _ in range(2):
        assert bench.report(launch, ("building", "one"), ("building", "two"))["ack"] == 2
    assert bench.said(launch)[-2:] == ["one", "two"]


def test_a_report_that_overlaps_adds_what_is_new(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    bench.report(launch, ("building", "one"), ("building", "two"))
    assert bench.report(launch, ("building", "two"), ("building", "three"), first=2)["ack"] == 3
    assert bench.said(launch)[-3:] == ["one", "two", "three"]


def test_a_report_with_a_gap_is_asked_for_again_from_the_gap_on(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    bench.report(launch, ("building", "one"))
    assert bench.report(launch, ("building", "three"), first=3)["ack"] == 1
    assert "three" not in bench.said(launch)


def test_an_agent_cannot_say_that_it_is_ready(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    bench.report(launch, ("ready", "let me in"))
    assert bench.phases(launch) == ["waiting"]


def test_an_overlong_line_is_cut_even_if_the_agent_did_not(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    bench.report(launch, ("building", "x" * 10_000))
    assert len(bench.said(launch)[-1]) == instances.LINE_MOST


def test_an_agent_is_told_to_stop_and_when_the_end_is(bench: Bench) -> None:
    launch = bench.ready(hours=1)
    assert bench.report(launch)["command"] == "go"
    assert bench.report(launch)["deadline"] == bench.launch(launch.id).deadline_at.isoformat()
    launches.stop(bench.at, launch.id)
    assert bench.report(launch)["command"] == "stop"


def test_another_agents_secret_reports_nothing(bench: Bench) -> None:
    launch = bench.advance(bench.request())
    bench.enrol(launch)
    report = instances.Report(order=bench.order(launch).id, first=1)
    with pytest.raises(errors.EnrolmentRefused):
        instances.report(bench.at, "m" * 43, report)


def test_no_secret_stands_in_the_table(bench: Bench) -> None:
    launch = bench.ready()
    order = bench.order(launch)
    task = bench.enrol(launch)
    table = b"".join(file.read_bytes() for file in bench.at.settings.home.glob("anybinder.sqlite*"))
    secrets = [AGENT, task["session"]["secret"], task["session"]["server_token"]]
    secrets += [bootstrap.enrolment_token(bench.at, order.id), bench.at.keys.token("launch", launch.id)]
    assert launch.id.encode() in table
    assert [secret for secret in secrets if secret.encode() in table] == []


def test_keys_show_nothing_of_themselves(bench: Bench) -> None:
    shown = repr(bench.at) + repr(bench.at.keys) + repr(enrolment("o"))
    assert AGENT not in shown
    assert crypto.Keyring(bench.at.settings.home).derive("x").hex() not in shown


def test_a_build_that_was_all_that_was_wanted_ends_with_the_name_of_the_image(bench: Bench) -> None:
    launch = bench.advance(bench.request(build_only=True))
    assert bench.enrol(launch)["spec"]["build_only"]
    said = [{"phase": "building", "message": "…"}, {"phase": "built", "message": "Built", "image": "repo:abc"}]
    order = bench.order(launch)
    full = instances.Report.model_validate({"order": order.id, "first": 1, "events": said})
    assert instances.report(bench.at, AGENT, full)["command"] == "stop"
    lines = [line for line in bench.events(launch) if line["phase"] in ("built", "ready", "failed")]
    assert [(line["phase"], line["imageName"]) for line in lines] == [("built", "repo:abc"), ("ready", "repo:abc")]
    ended = bench.until_stopped(launch)
    assert (ended.reason, ended.image) == ("built", "repo:abc")
    assert bench.cloud.instances_by_order == {}


def test_a_session_finds_binders_words_in_its_variables(bench: Bench) -> None:
    launch = bench.advance(bench.request(request={"binder_request": "v2/gh/o/r/HEAD", "other": "x"}))
    env = bench.enrol(launch)["spec"]["env"]
    assert env == {"BINDER_REQUEST": "v2/gh/o/r/HEAD", "BINDER_REPO_URL": launch.repo_url}
