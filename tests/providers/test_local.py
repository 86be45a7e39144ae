"""The process engine on this computer: what only it can get wrong. The contract over it is in `tests/contract`."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from providers import processes
from providers.base import Boot, Connection, InstanceState, Offer, Order, Resources, Tag
from providers.contract import TOKEN, new_id
from providers.errors import InvalidOrder, NoCapacity, ProviderUnavailable
from providers.local import LocalProvider
from tests.contract.over_local import AGENT, folders
from tests.waiting import until

PENDING, RUNNING, STOPPING, GONE = InstanceState


@pytest.fixture
def configuration() -> Iterator[dict[str, str]]:
    with folders() as found:
        yield found


@pytest.fixture
def local(configuration: dict[str, str]) -> LocalProvider:
    return LocalProvider(configuration)


@pytest.fixture
def credential(local: LocalProvider):
    return local.sign_in(Connection(kind="none"), None)


@pytest.fixture
def home(configuration: dict[str, str]) -> Path:
    return Path(configuration["home"])


def order(*behave: str, order_id: str | None = None, lasts: timedelta = timedelta(hours=1)) -> Order:
    order_id = order_id or new_id()
    tag = Tag(broker="b1", launch="l1", order=order_id, until=datetime.now(UTC).replace(microsecond=0) + lasts)
    boot = Boot(user_data="", config={"token": TOKEN, "behave": list(behave)}, agent=AGENT, builder=("build", "it"))
    return Order(id=order_id, offer=Offer(id="this-computer", title="x"), tag=tag, boot=boot)


@pytest.fixture
def started(local, credential, home):
    """Provisions an order and waits until its agent has done what it was told to do first."""

    def started(*behave: str, lasts: timedelta = timedelta(hours=1)) -> Order:
        bought = order(*behave, lasts=lasts)
        local.provision(credential, bought)
        until((home / bought.id / "ready").exists, what="the stand-in is ready")
        return bought

    return started


@pytest.fixture
def state(local, credential):
    return lambda order_id: local.describe(credential, order_id).state


# --- provision ------------------------------------------------------------------------------------------------------


def test_the_agent_is_told_where_it_may_live(local, credential, home, monkeypatch):
    told = {}
    monkeypatch.setattr(
        processes, "start_detached", lambda argv, **_: told.update(json.loads(Path(argv[-1]).read_text()))
    )
    bought = order()
    local.provision(credential, bought)
    assert told["token"] == TOKEN
    assert told["home"] == str(home / bought.id)
    assert told["builder"] == ["build", "it"]
    assert told["tcp_servers"] is False
    assert len(told["runtime"] + "/s.sock") <= 107
    assert told["rlimits"] == {"RLIMIT_CORE": 0}


def test_racing_workers_in_processes_of_their_own_make_one_agent(configuration, home):
    script = """
import sys
from tests.providers.test_local import order
from providers.local import LocalProvider
from providers.local.place import Place
import ast
local = LocalProvider(ast.literal_eval(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(local.provision(local.sign_in(__import__("providers.base").base.Connection(kind="none"), None),
                      order(order_id=sys.argv[2])).id)
"""
    order_id = new_id()
    argv = [sys.executable, "-c", script, repr(configuration), order_id]
    workers = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
        for _ in range(4)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    assert {worker.communicate(timeout=20)[0].strip() for worker in workers} == {order_id}
    until((home / order_id / "ready").exists, what="the agent is ready")
    assert len(processes.marked(order_id)) == 1


def test_a_worker_that_died_before_it_started_the_agent_is_finished_by_the_next(
    local, credential, home, monkeypatch, state
):
    bought = order()
    with monkeypatch.context() as killed:
        killed.setattr(processes, "start_detached", _die)
        with pytest.raises(Killed):
            local.provision(credential, bought)
    assert state(bought.id) is PENDING
    assert [(found.id, found.tag) for found in local.instances(credential, "b1")] == [(bought.id, bought.tag)]
    local.provision(credential, bought)
    until(lambda: state(bought.id) is RUNNING, what="it runs")


def test_a_half_created_instance_is_ended(local, credential, home, monkeypatch, state):
    bought = order()
    monkeypatch.setattr(processes, "start_detached", _die)
    with pytest.raises(Killed):
        local.provision(credential, bought)
    local.terminate(credential, None, bought.id)
    assert state(bought.id) is GONE
    assert not (home / bought.id).exists()


def test_a_worker_that_died_before_the_folder_had_its_tag_leaves_nothing_that_counts(
    local, credential, home, monkeypatch, state
):
    bought = order()
    with monkeypatch.context() as killed:
        killed.setattr(Path, "rename", _die)
        with pytest.raises(Killed):
            local.provision(credential, bought)
    assert state(bought.id) is GONE
    assert local.instances(credential, "b1") == []
    assert not list((home / ".new").iterdir()), "swept"
    local.provision(credential, bought)
    until(lambda: state(bought.id) is RUNNING, what="it runs")


def test_a_second_start_of_the_same_order_changes_nothing(local, credential, home, started, state):
    """A worker died after it forked the agent, and the next one saw nothing of it yet."""
    bought = started()
    first = (home / bought.id / "pid").read_text()
    place = local._place(bought.id)
    place.start(bought, local._boot(bought, place))
    until(lambda: len(processes.marked(bought.id)) == 1, what="the second agent has ended itself")
    assert (home / bought.id / "pid").read_text() == first
    assert state(bought.id) is RUNNING


def test_an_order_that_was_ended_before_it_was_bought_is_not_started_by_a_call_that_comes_late(
    local, credential, home, state
):
    bought = order()
    local.terminate(credential, None, bought.id)
    late = local.provision(credential, bought)
    assert (late.id, late.state, late.tag) == (bought.id, GONE, bought.tag)
    assert processes.marked(bought.id) == []


def test_nothing_is_started_without_memory(configuration, credential):
    crowded = LocalProvider({**configuration, "memory_floor_mb": str(10**9)})
    with pytest.raises(NoCapacity, match="memory free"):
        crowded.provision(credential, order())


def test_an_instance_that_runs_is_found_again_also_without_memory(configuration, credential, started):
    bought = started()
    crowded = LocalProvider({**configuration, "memory_floor_mb": str(10**9)})
    assert crowded.provision(credential, bought).state is RUNNING


def test_an_order_cannot_name_a_folder_elsewhere(local, credential, home):
    for name in ("../x", "", ".ended", "a/b", "A", "a" * 33):
        with pytest.raises(InvalidOrder):
            local.provision(credential, replace(order(), id=name))
        local.terminate(credential, None, name)
        assert local.describe(credential, name).state is GONE


def test_a_worker_that_holds_an_order_for_too_long_is_not_waited_for(local, monkeypatch, credential):
    monkeypatch.setattr("providers.local.place.LOCK_SECONDS", 0)
    bought = order()
    place = local._place(bought.id)
    with place.locked(), pytest.raises(ProviderUnavailable, match="busy"), place.locked(seconds=0.02):
        pass


def test_a_runtime_folder_too_deep_for_a_socket_is_refused(configuration):
    with pytest.raises(InvalidOrder, match="shorter"):
        LocalProvider({**configuration, "runtime": "/tmp/" + "x" * 80})


def test_the_settings_reach_the_agent(configuration, credential, monkeypatch):
    told = {}
    monkeypatch.setattr(
        processes, "start_detached", lambda argv, **_: told.update(json.loads(Path(argv[-1]).read_text()))
    )
    local = LocalProvider({**configuration, "local_tcp_servers": "true", "python_downloads": "yes"})
    local.provision(credential, order())
    assert (told["tcp_servers"], told["python_downloads"]) == (True, True)


def test_a_setting_that_is_no_number_is_refused(configuration):
    with pytest.raises(InvalidOrder, match="memory_mb"):
        LocalProvider({**configuration, "memory_mb": "lots"})


def test_no_setting_of_the_broker_reaches_the_agent(local, credential, started, monkeypatch):
    monkeypatch.setenv("ANYBINDER_GITHUB_TOKEN", "a-secret")
    bought = started()
    (agent,) = processes.marked(bought.id)
    assert "a-secret" not in json.dumps(agent.environ())


def test_the_agent_is_nobodys_child_here_and_outlives_the_worker(local, started):
    (agent,) = processes.marked(started().id)
    assert agent.ppid() != os.getpid()
    assert os.getsid(agent.pid) != os.getsid(0)


# --- offers ---------------------------------------------------------------------------------------------------------


def test_this_computer_is_offered_for_nothing(local, credential):
    (offer,) = local.offers(credential, Resources())
    assert offer.price_per_hour == 0
    assert offer.resources.memory_mb > 0


@pytest.mark.parametrize("asked", [Resources(gpu=1), Resources(cpu=10_000), Resources(disk_gb=10**9)])
def test_this_computer_offers_nothing_that_it_has_not(local, credential, asked):
    assert local.offers(credential, asked) == []


# --- the end --------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_grace(monkeypatch):
    monkeypatch.setattr("providers.local.place.GRACE_SECONDS", 0)


def test_an_agent_gets_its_grace(local, credential, started, state):
    bought = started("stubborn")
    local.terminate(credential, bought.id, bought.id)
    assert state(bought.id) is STOPPING
    assert len(processes.marked(bought.id)) == 1


@pytest.mark.parametrize("looking", ["describe", "instances", "terminate"])
def test_an_agent_that_will_not_end_is_killed_by_whoever_looks_next(
    local, credential, started, no_grace, home, looking
):
    bought = started("stubborn", "child")
    look = {
        "describe": lambda: local.describe(credential, bought.id),
        "instances": lambda: local.instances(credential, "b1"),
        "terminate": lambda: local.terminate(credential, None, bought.id),
    }[looking]
    local.terminate(credential, bought.id, bought.id)
    until(lambda: [look(), not (home / bought.id).exists()][1], what="its folder is gone")
    assert processes.marked(bought.id) == []


def test_a_child_that_washed_off_its_mark_is_ended_too(local, credential, started, no_grace, state):
    bought = started("stubborn", "washed")
    (agent,) = processes.marked(bought.id)
    (washed,) = agent.children()
    local.terminate(credential, bought.id, bought.id)
    until(lambda: state(bought.id) is GONE, what="it is gone")
    assert not processes.is_alive(washed)


def test_what_the_agent_left_behind_is_ended(local, credential, started, state):
    bought = started("orphan")
    until(lambda: state(bought.id) is STOPPING, what="the agent has ended")
    assert processes.marked(bought.id), "and left something"
    local.terminate(credential, bought.id, bought.id)
    until(lambda: state(bought.id) is GONE, what="it is gone")
    assert processes.marked(bought.id) == []


def test_an_agent_that_ended_by_itself_says_why(local, credential, started, state):
    bought = started("exit")
    until(lambda: state(bought.id) is STOPPING, what="the agent has ended")
    assert "the stand-in has nothing to do" in local.describe(credential, bought.id).detail
    local.terminate(credential, bought.id, bought.id)
    until(lambda: state(bought.id) is GONE, what="it is gone")
    assert "nothing to do" in local.describe(credential, bought.id).detail, "also afterwards"


def test_a_process_whose_folder_is_gone_is_listed_and_ended(local, credential, started, home, state):
    bought = started("stubborn")
    shutil.rmtree(home / bought.id)
    assert [(found.id, found.tag, found.state) for found in local.instances(credential, "b1")] == [
        (bought.id, bought.tag, STOPPING)
    ]
    local.terminate(credential, None, bought.id)
    until(lambda: state(bought.id) is GONE, what="it is gone")
    assert processes.marked(bought.id) == []


def test_a_worker_that_died_between_record_and_signal_is_finished_by_the_next(
    local, credential, started, monkeypatch, state
):
    bought = started()
    with monkeypatch.context() as killed:
        killed.setattr(psutil.Process, "send_signal", _die)
        with pytest.raises(Killed):
            local.terminate(credential, bought.id, bought.id)
    assert state(bought.id) is STOPPING
    local.terminate(credential, bought.id, bought.id)
    until(lambda: state(bought.id) is GONE, what="it is gone")


def test_a_folder_that_its_session_made_read_only_is_removed(local, credential, started, home, state):
    bought = started()
    deep = home / bought.id / "home" / "locked"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    deep.chmod(0o500)
    local.terminate(credential, bought.id, bought.id)
    until(lambda: state(bought.id) is GONE, what="it is gone")


def test_a_link_in_a_session_folder_leads_nowhere(local, credential, started, home, state, tmp_path):
    bought = started()
    (tmp_path / "precious").write_text("x")
    (home / bought.id / "link").symlink_to(tmp_path)
    local.terminate(credential, bought.id, bought.id)
    until(lambda: state(bought.id) is GONE, what="it is gone")
    assert (tmp_path / "precious").exists()


def test_a_number_used_again_by_a_stranger_is_not_signalled(local, credential, started, home, state):
    bought = started("exit")
    until(lambda: state(bought.id) is STOPPING, what="the agent has ended")
    with subprocess.Popen(["/bin/sleep", "600"]) as stranger:
        (home / bought.id / "pid").write_text(f"{stranger.pid}\n")
        local.terminate(credential, bought.id, bought.id)
        until(lambda: state(bought.id) is GONE, what="it is gone")
        assert stranger.poll() is None
        stranger.kill()


def test_the_record_of_an_end_is_forgotten_when_no_call_can_come_any_more(local, credential, home, started, state):
    bought = started("exit", lasts=timedelta(days=-2))
    local.terminate(credential, bought.id, bought.id)
    until(lambda: state(bought.id) is GONE, what="it is gone")
    record = home / ".ended" / bought.id
    local.instances(credential, "b1")
    assert record.exists(), "an end is remembered for a day at least"
    record.write_text(json.dumps({**json.loads(record.read_text()), "keep_until": "2020-01-01T00:00:00+00:00"}))
    local.instances(credential, "b1")
    assert not record.exists()
    assert not (home / ".locks" / bought.id).exists()


def test_a_control_group_holds_the_session_and_goes_with_it(local, credential, started, home, state):
    bought = started("child")
    groups = [Path(path) for path in json.loads((home / bought.id / "cgroups.json").read_text())["cgroups"]]
    if not groups:
        pytest.skip("no control groups are permitted here")
    agent = int((home / bought.id / "pid").read_text())
    assert all(str(agent) in (group / "cgroup.procs").read_text().split() for group in groups)
    local.terminate(credential, bought.id, bought.id)
    until(lambda: state(bought.id) is GONE, what="it is gone")
    assert not [group for group in groups if group.exists()]


# --- other users of this computer -----------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look with another user's eyes")
def test_another_user_sees_neither_folder_nor_socket_nor_token(local, credential, configuration, home):
    """Looks with another user's eyes while the token is still in the boot file."""
    Path(configuration["home"]).parent.chmod(0o755)
    bought = order("socket")
    local.provision(credential, bought)
    until((home / bought.id / "ready").exists, what="the stand-in is ready")
    folder = home / bought.id
    (folder / "boot.json").write_text(TOKEN)
    seen = as_another_user(
        lambda: [
            *_attempts(lambda: list(folder.iterdir()), lambda: (folder / "boot.json").read_text()),
            *_attempts(lambda: _connect(Path(configuration["runtime"]) / bought.id / "s.sock")),
            *_attempts(lambda: _environ_of(bought.id, folder)),
            "token in a command line" if TOKEN in _command_lines() else "",
        ]
    )
    assert [thing for thing in seen if thing] == []


def as_another_user(look):
    """What `look` returns, run by the user nobody in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        os.write(writing, json.dumps(look(), default=str).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text)


def _attempts(*attempts):
    """What each attempt got hold of; empty where it was refused."""
    found = []
    for attempt in attempts:
        try:
            found.append(repr(attempt()))
        except PermissionError:
            found.append("")
    return found


def _connect(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    return "connected"


def _environ_of(mark: str, folder: Path) -> str:
    agent = next(pid for pid in psutil.pids() if str(folder) in _command_line(pid))
    return Path(f"/proc/{agent}/environ").read_text()


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _command_lines() -> str:
    return "\n".join(_command_line(pid) for pid in psutil.pids())


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs, and no handler of errors sees it."""


def _die(*_: object, **__: object) -> None:
    raise Killed


# --- an engine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("engine", "lxc", "engine must be process, docker or podman, not 'lxc'."),
        ("engine_url", "tcp://10.0.0.1:2375", "engine_url must be a socket of this computer"),
        ("cpu", "none", "cpu must be a number above zero"),
        ("most_memory_mb", "-1", "most_memory_mb must be a number above zero"),
        ("network", "bridge", "network must be fenced, open or none"),
        ("network_allowed", "the printer", "network_allowed must be IPv4 addresses or networks"),
        ("builder", "conda", "builder must be uv or stock"),
    ],
)
def test_a_setting_of_an_engine_that_cannot_work_is_refused_with_a_sentence(configuration, setting, value, sentence):
    with pytest.raises(InvalidOrder, match=re.escape(sentence)):
        LocalProvider(configuration | {"engine": "docker", setting: value})


def test_only_containers_keep_a_session_in(configuration):
    assert not LocalProvider(configuration).confined
    assert LocalProvider(configuration | {"engine": "podman"}).confined
    assert not LocalProvider(configuration | {"engine": "podman", "network": "open"}).confined


@pytest.mark.parametrize(("user", "confined"), [(0, True), (1000, False)])
def test_without_a_network_a_session_is_kept_in_only_where_its_build_is(configuration, monkeypatch, user, confined):
    """A build has a network in any case, and only root can fence that."""
    monkeypatch.setattr("providers.local.engine.os.geteuid", lambda: user)
    monkeypatch.setattr("providers.local.engine.shutil.which", lambda *_, **__: "/sbin/iptables")
    monkeypatch.setattr("providers.local.engine.sys.platform", "linux")
    assert LocalProvider(configuration | {"engine": "docker", "network": "none"}).confined is confined


@pytest.mark.parametrize("verb", ["offers", "provision", "describe", "terminate", "instances"])
def test_an_engine_that_does_not_run_is_unavailable_and_says_what_to_do(configuration, verb):
    away = LocalProvider(
        configuration | {"engine": "docker", "network": "open", "engine_url": "unix:///nonexistent/engine.sock"}
    )
    calls = {
        "offers": lambda: away.offers(None, Resources()),
        "provision": lambda: away.provision(None, order()),
        "describe": lambda: away.describe(None, new_id()),
        "terminate": lambda: away.terminate(None, None, new_id()),
        "instances": lambda: away.instances(None, "b1"),
    }
    with pytest.raises(ProviderUnavailable, match=r"does not answer at unix:///nonexistent.*engine_url.*\.$"):
        calls[verb]()
