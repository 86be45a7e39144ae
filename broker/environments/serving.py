"""A container as a session's server: made, watched, and removed when this process is told to end or its parent dies.

What keeps the container in: no capability that it can do without, no new privileges, limits on memory, CPUs and processes,
a network of its own with a fence around (`network`), and of this computer's folders one, which is empty but for its socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.environments import container, engines, network
from broker.environments.programs import Failed

if TYPE_CHECKING:
    import docker

GRACE_SECONDS = 3  # of the five that the agent gives us
ROOT_NEEDS = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
"""What a server that starts as root needs to become somebody else, and a package manager to unpack. Docker's own default
has six more, of which raw sockets and device nodes are the worst."""
OUT_OF_MEMORY = 137


class Told(Exception):
    """Somebody wants it to end."""


def serve(path: Path) -> int:
    """Run the container to its end; returns its exit status. Its output is ours."""
    signal.signal(signal.SIGTERM, _told)
    signal.signal(signal.SIGINT, _told)
    run = json.loads(path.read_text())
    try:
        end_with_parent()
        return run_in(run)
    except Told:
        return 0
    except Failed as failure:
        print(failure, flush=True)  # noqa: T201 - the agent shows a server's last words
        return 1


def sweep(told: dict[str, Any]) -> int:
    """Remove what is left of an order's containers. 0 where nothing is left."""
    try:
        with engines.client(told["engine"], seconds=15) as client:
            engines.remove(client, told["order"])
    except Failed as failure:
        print(failure, flush=True)  # noqa: T201
        return 1
    return 0


def _told(_number: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows must run to its end
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise Told


def end_with_parent() -> None:
    """Be told when the agent dies, instead of being killed with it: a container is left behind by who is killed."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(1, int(signal.SIGTERM), 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() == 1:
        raise Told


def run_in(run: dict[str, Any]) -> int:
    with engines.client(run["engine"]) as client, engines.client(run["engine"], seconds=None) as listener:
        try:
            made = make(client, run)
            output = listener.attach(made, stream=True, logs=False)
            threading.Thread(target=pass_on, args=[output], daemon=True).start()
            client.start(made)
            announce(client, made, run)
            with engines.client(run["engine"], seconds=None) as waiting:
                status = int(waiting.wait(made)["StatusCode"])
            explain(client, made, run, status)
            return status if status < 256 else 1
        finally:
            (Path(run["runtime"]) / "target").unlink(missing_ok=True)
            end(client, run["order"])


def make(client: docker.APIClient, run: dict[str, Any]) -> str:
    """Create it. Of one name there is one: what another attempt left is removed first."""
    engine = run["engine"]
    engines.remove(client, run["order"])
    run["reach"] = container.reach(client.info())
    mode = network.ensure(client, engine)
    published = {run["port"]: ("127.0.0.1",)} if run["reach"] == "published" and mode != "none" else None
    memory = int(engine["memory_mb"]) * 2**20
    limits = client.create_host_config(
        mem_limit=memory,
        memswap_limit=memory,
        nano_cpus=int(float(engine["cpu"]) * 1e9),
        pids_limit=int(engine["pids"]),
        shm_size=memory // 4,
        init=True,
        cap_drop=["ALL"],
        cap_add=list(ROOT_NEEDS) if run["root"] else [],
        security_opt=["no-new-privileges"],
        network_mode=mode,
        port_bindings=published,
        binds=[f"{own_folder(run)}:{container.MOUNT}:rw,z"],
        log_config={"Type": "none", "Config": {}},  # its output goes to the agent, which bounds it
        oom_score_adj=500,
    )
    made = client.create_container(
        run["image"],
        run["command"],
        name=engines.name_of(run["order"]),
        hostname=f"anybinder-{run['order'][:8]}",
        environment=container.environment(run),
        labels=engine["labels"],
        ports=list(published) if published else None,
        host_config=limits,
        healthcheck={"test": ["NONE"]},
    )
    return str(made["Id"])


def own_folder(run: dict[str, Any]) -> Path:
    """The only folder of this computer that the container sees. Its user is any, so all may write; ours keeps others out."""
    folder = Path(run["runtime"]) / "c"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    return folder


def announce(client: docker.APIClient, made: str, run: dict[str, Any]) -> None:
    """Write down where it can be reached, for the agent."""
    target: dict[str, Any] = {"unix": str(Path(run["runtime"]) / "c" / Path(container.SOCKET).name)}
    if not run["on_socket"] and (address := address_of(client.inspect_container(made), run)):
        target["tcp"] = address
    draft = Path(run["runtime"]) / "target.new"
    draft.write_text(json.dumps(target))
    draft.replace(draft.with_name("target"))


def address_of(found: dict[str, Any], run: dict[str, Any]) -> list[Any] | None:
    """Address and port; None where it has no network, or has ended already."""
    told = found["NetworkSettings"]
    if run["reach"] == "published":
        bound = (told.get("Ports") or {}).get(f"{run['port']}/tcp") or []
        return ["127.0.0.1", int(bound[0]["HostPort"])] if bound else None
    addresses = [each.get("IPAddress") for each in (told.get("Networks") or {}).values()]
    return next(([address, run["port"]] for address in addresses if address), None)


def pass_on(output: Any) -> None:
    """Its output becomes ours, as it comes."""
    with contextlib.suppress(Exception):
        for piece in output:
            os.write(1, piece)


def explain(client: docker.APIClient, made: str, run: dict[str, Any], status: int) -> None:
    """Say why it ended, where only the engine knows."""
    state = client.inspect_container(made)["State"]
    if state.get("OOMKilled") and status == OUT_OF_MEMORY:
        told = (
            f"The session ran out of memory: it had {run['engine']['memory_mb']} MB. Launch it with more, or use less."
        )
        os.write(1, f"\n{told}\n".encode())


def end(client: docker.APIClient, order: str) -> None:
    """Ask it to end, then make it, then remove it. What cannot be removed is found by its labels later."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(Exception):
        client.stop(engines.name_of(order), timeout=GRACE_SECONDS)
    engines.remove(client, order)
