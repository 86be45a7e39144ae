"""Sessions in containers: what is served, what they may use up, and that nothing of them is left."""

from __future__ import annotations

import pytest

from broker import agent as agent_module
from broker.environments import container
from providers.base import InstanceState, Resources
from providers.errors import InvalidOrder
from providers.local import LocalProvider
from providers.local import engine as engine_module
from tests.docker import images
from tests.waiting import until

MEMORY_MB = 300


def test_jupyter_is_served_where_the_image_has_it(session, jupyter):
    one = session(jupyter).up()
    assert one.broker.status["kind"] == "jupyter"
    assert '"started"' in one.get("/api/status", "--header", "Authorization: token server-token")
    assert "Forbidden" in one.get("/api/kernels")
    assert one.inside("printenv HOME BINDER_REQUEST JUPYTER_TOKEN PORT").splitlines() == [
        "/home/jovyan",
        "v2/gh/o/r/main",
        "server-token",
        "8888",
    ]
    assert "server-token" not in str(one.facts()["Config"]["Cmd"]), "anybody can read a process's arguments"


def test_a_notebook_server_of_the_old_days_is_served_too(session, engine):
    one = session(images.old_notebook(engine)).up()
    assert one.broker.status["kind"] == "jupyter"
    assert '"started"' in one.get("/api/status", "--header", "Authorization: token server-token")


def test_an_image_without_jupyter_is_served_by_its_own_command_on_the_port_it_exposes(session, app):
    one = session(app).up()
    assert one.broker.status["kind"] == "app"
    assert one.get("/") == "hello from 3000"


def test_a_web_app_that_asks_where_to_serve_is_told(session, engine, app):
    one = session(engine.build(f"FROM {app}\nEXPOSE 8888\nCMD python3 /app.py $PORT\n", name="asks")).up()
    assert one.get("/") == "hello from 8888"


def test_a_web_app_may_serve_on_a_socket_and_have_no_network(session, engine):
    code = (
        "import http.server, os, socketserver; h = http.server.SimpleHTTPRequestHandler; "
        "h.address_string = lambda self: str(); h.log_message = lambda *a: None; "
        "socketserver.UnixStreamServer(os.environ['ANYBINDER_SOCKET'], h).serve_forever()"
    )
    image = engine.build(f'FROM {engine.base_image}\nUSER 1234\nCMD ["python3", "-c", "{code}"]\n', name="socket")
    one = session(image, network="none").up()
    assert one.broker.status["kind"] == "app"
    assert "Directory listing" in one.get("/")


def test_an_image_with_nothing_to_serve_says_what_to_do(session, engine):
    one = session(engine.base_image)
    until(lambda: one.failure, seconds=60, what="it fails")
    assert "Install jupyterlab in it, or end its Dockerfile with a CMD" in one.failure


def test_what_a_server_says_before_it_fails_is_told(session, engine):
    words = 'CMD ["python3", "-c", "print(\'one thing is missing\'); raise SystemExit(3)"]'
    one = session(engine.build(f"FROM {engine.base_image}\n{words}\n", name="fails"))
    until(lambda: one.failure, seconds=60, what="it fails")
    assert "one thing is missing" in one.said
    assert "exit status 3" in one.failure


# --- what it may use up ---------------------------------------------------------------------------------------------


def test_a_container_has_the_size_that_was_asked_for(session, app):
    one = session(app, cpu=0.5, memory_mb=MEMORY_MB, pids="77").up()
    limits = one.facts()["HostConfig"]
    assert limits["Memory"] == limits["MemorySwap"] == MEMORY_MB * 2**20
    assert limits["NanoCpus"] == 500_000_000
    assert limits["PidsLimit"] == 77
    assert quota(one) == 0.5


def quota(one) -> float:
    """As the kernel has it, in either version of control groups."""
    said = one.inside("cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_[qp]*_us").split()
    allowed, period = sorted(map(int, said))
    return allowed / period


def test_a_session_that_runs_out_of_memory_says_so(session, app):
    one = session(app, memory_mb=MEMORY_MB).up()
    one.get("/fill")
    until(lambda: one.server == "down", seconds=60, what="it has ended")
    until(lambda: "out of memory" in one.said, what=f"it says why: {one.said}")
    assert f"it had {MEMORY_MB} MB" in one.said


def test_a_fork_bomb_stays_in_its_container(session, app):
    one = session(app, pids="60").up()
    said = one.inside("for i in $(seq 100); do sleep 60 & done; wait")
    assert "fork" in said.lower()
    assert one.get("/") == "hello from 3000"


def test_what_is_offered_is_a_container_of_the_size_asked(configuration):
    offered = LocalProvider(configuration).offers
    assert offered(None, Resources())[0].resources == Resources(cpu=1, memory_mb=400)
    assert offered(None, Resources(cpu=0.5, memory_mb=123))[0].resources == Resources(cpu=0.5, memory_mb=123)
    assert LocalProvider(configuration | {"most_memory_mb": "500"}).offers(None, Resources(memory_mb=501)) == []
    assert LocalProvider(configuration | {"most_cpu": "1"}).offers(None, Resources(cpu=2)) == []


# --- nothing is left ------------------------------------------------------------------------------------------------


def test_a_session_that_is_told_to_stop_removes_its_container_itself(session, app):
    one = session(app).up()
    one.broker.command = "stop"
    until(lambda: one.left() == [], seconds=20, what="nothing is left")


@pytest.mark.parametrize("killed", ["guardian", "worker", "runner"])
def test_whichever_of_its_processes_is_killed_the_others_remove_the_container(session, app, killed):
    one = session(app).up()
    one.kill(killed)
    until(lambda: one.left() == [] or one.server == "down", seconds=30, what="somebody notices")
    one.broker.command = "stop"
    until(lambda: one.left() == [], seconds=30, what="nothing is left")


def test_a_container_whose_processes_are_all_killed_is_listed_and_removed(session, app):
    one = session(app).up()
    one.kill("guardian", "worker", "runner")
    until(lambda: one.look().state is InstanceState.STOPPING, what="its death shows")
    assert f"container {one.container}" in one.look().parts
    assert [each.id for each in one.provider.instances(one.credential, "b1")] == [one.order.id]
    one.end()


def test_a_container_is_listed_and_removed_when_its_folder_is_gone_too(session, app, configuration):
    import shutil

    one = session(app).up()
    one.kill("guardian", "worker", "runner")
    until(lambda: one.look().state is InstanceState.STOPPING, what="its death shows")
    shutil.rmtree(configuration["home"])
    (found,) = one.provider.instances(one.credential, "b1")
    assert (found.id, found.tag, found.state) == (one.order.id, one.order.tag, InstanceState.STOPPING)
    one.end()


def test_a_container_is_taken_for_what_its_computer_is(configuration, monkeypatch):
    """Whether containers keep a session in decides who may be offered this computer."""
    assert LocalProvider(configuration).confined
    assert not LocalProvider(configuration | {"engine": "process"}).confined
    monkeypatch.setattr(engine_module.os, "geteuid", lambda: 1000)
    with pytest.raises(InvalidOrder, match=r"not run as root.*network to none.*\.$"):
        LocalProvider(configuration)._engine.refuse_without_fence()
    LocalProvider(configuration | {"network": "none"})._engine.refuse_without_fence()


@pytest.mark.parametrize(
    ("about", "platform", "expected"),
    [
        ({}, "linux", "direct"),
        ({"SecurityOptions": ["name=seccomp", "name=rootless"]}, "linux", "published"),
        ({"OperatingSystem": "Docker Desktop"}, "linux", "published"),
        ({}, "darwin", "published"),
    ],
)
def test_a_container_is_reached_by_its_address_where_there_is_a_way(about, platform, expected):
    assert container.reach(about, platform) == expected


def test_the_agent_waits_as_long_for_a_container_to_end_as_the_runner_gives_it():
    from broker.environments import serving

    assert serving.GRACE_SECONDS < agent_module.GRACE_SECONDS
