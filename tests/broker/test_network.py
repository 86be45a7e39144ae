"""The fence, as far as it can be seen without an engine; `tests/docker/test_fence.py` has it with one."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from broker.environments import building, engines, network
from broker.environments.programs import Failed


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What it says of itself can be set; the packet filter is one that takes everything."""
    about: dict[str, Any] = {"OperatingSystem": "Debian", "SecurityOptions": []}

    @contextlib.contextmanager
    def client(*_: object, **__: object) -> Iterator[Any]:
        yield SimpleNamespace(info=lambda: about)

    monkeypatch.setattr(engines, "client", client)
    monkeypatch.setattr(network, "why_not", lambda: "")
    monkeypatch.setattr(network, "asked", lambda *_, **__: "")
    return about


@pytest.mark.parametrize("kind", ["fenced", "none"])
@pytest.mark.parametrize(
    "about", [{"SecurityOptions": ["name=seccomp", "name=rootless"]}, {"OperatingSystem": "Docker Desktop"}]
)
def test_no_fence_is_believed_in_where_the_engines_network_is_elsewhere(engine, about, kind):
    told = {"kind": "docker", "url": "unix:///x", "network": kind}
    network.before_build(told)
    engine.update(about)
    with pytest.raises(Failed, match="its network elsewhere"):
        network.before_build(told)


@pytest.mark.skipif(not shutil.which("ip6tables", path=network.path()), reason="there is no ip6tables")
def test_a_build_has_no_way_in_by_ipv6() -> None:
    """The rules read as the packet filter writes them, else they would be put in again before each container."""
    lines = [f"-A {chain} {rule}" for chain, rules in network.inner_ipv6().items() for rule in rules]
    for bridge in network.BUILDS:
        assert any(line.startswith(f"-A INPUT -i {bridge} ") for line in lines)
        assert any(line.startswith(f"-A FORWARD -d fc00::/7 -i {bridge} -j REJECT") for line in lines)
    given = "\n".join(["*filter", *lines, "COMMIT", ""])
    script = "ip6tables-restore && ip6tables -S"
    apart = ["unshare", "--map-root-user", "--net", "sh", "-c", script]
    ended = subprocess.run(
        apart, input=given, env={"PATH": network.path()}, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        pytest.skip(f"a network namespace cannot be had here: {ended.stderr}")
    assert [line for line in ended.stdout.splitlines() if line.startswith("-A ")] == sorted(
        lines, key=lambda line: ["INPUT", "FORWARD", "OUTPUT"].index(line.split()[1])
    )
    for line in lines:
        assert network.leads_to_ours(line.split(), "ip6tables")


@pytest.mark.parametrize(
    ("kind", "kept_in", "version", "file", "built"),
    [
        ("podman", "fenced", "4.3.1", "Dockerfile", True),
        ("podman", "fenced", "4.5.0", "Dockerfile", False),
        ("podman", "none", "5.4.2-dev", "binder/Dockerfile", False),
        ("podman", "fenced", "5.4.2", "requirements.txt", True),
        ("podman", "open", "5.4.2", "Dockerfile", True),
        ("docker", "fenced", "28.0.1", "Dockerfile", True),
    ],
)
def test_no_dockerfile_leaves_the_fence_by_a_step_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, kept_in: str, version: str, file: str, built: bool
) -> None:
    """`RUN --network=host`, or an image whose ONBUILD says so."""

    @contextlib.contextmanager
    def client(*_: object, **__: object) -> Iterator[Any]:
        yield SimpleNamespace(version=lambda: {"Version": version})

    monkeypatch.setattr(engines, "client", client)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("FROM x\nRUN --network=host y\n")
    with contextlib.nullcontext() if built else pytest.raises(Failed, match="a Dockerfile is not built"):
        building.check_recipe(tmp_path, "", {"kind": kind, "network": kept_in})
