"""What a session's container runs: Jupyter, where the image has it, else the image's own command.

An image is looked into once: what was found is kept by the image's id.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.environments import engines, programs
from broker.environments.programs import Failed

if TYPE_CHECKING:
    import docker

PORT = 8888
MOUNT = "/run/anybinder"
SOCKET = f"{MOUNT}/s"
LOOK_SECONDS = 60  # a login shell and one `--version`, on a busy computer
ONLY_TALK = {"sh", "bash", "dash", "zsh", "ash", "python", "python3", "R", "julia", "node", "irb"}
"""What base images name as their command, and what ends at once without a terminal."""
LOOK = r"""
has() { command -v "$1" >/dev/null 2>&1; }
if has jupyter-server && has jupyter-lab; then echo "found lab"
elif has jupyter-notebook; then echo "found notebook $(jupyter-notebook --version 2>/dev/null)"
elif has jupyter-lab; then echo "found lab"
elif has jupyter-server; then echo "found server"
fi
"""
"""Asks a login shell of the image, as its entry point would: repo2docker's images have Jupyter on that path only."""


def prepare(spec: dict[str, Any], image: str) -> dict[str, Any]:
    """How to start the session in this image, for the agent. Looks into an image that it has not seen before.

    Raises Failed where the image has nothing to serve, or the engine is out of reach.
    """
    home, runtime, engine = Path(spec["home"]), Path(spec["runtime"]), spec["engine"]
    with engines.client(engine) as client:
        found = client.inspect_image(image)
        jupyter = look_inside(client, found["Id"], Path(spec["cache"]) / "images", engine["labels"])
        on_socket = uses_socket(jupyter) and shares_folders(client.info())
    config = found.get("Config") or {}
    run = {
        "engine": engine,
        "image": found["Id"],
        "order": engine["labels"]["anybinder-order"],
        "command": command(jupyter, config, on_socket=on_socket),
        "on_socket": on_socket,
        "port": PORT if jupyter else port_of(config),
        "root": runs_as_root(config),
        "env": spec.get("env") or {},
        "runtime": str(runtime),
    }
    path = home / "run.json"
    path.touch(0o600)
    path.write_text(json.dumps(run))
    (home / "home").mkdir(mode=0o700, exist_ok=True)
    here = Path(__file__).resolve().parent
    return {"argv": [sys.executable, "-I", str(here), "--serve", str(path)], "env": {}, "cwd": str(home)}


def look_inside(client: docker.APIClient, image: str, kept: Path, labels: dict[str, str]) -> str:
    """What the image has of Jupyter: "lab", "server", "notebook 7.2.1" or "". Runs a shell in it, once an image."""
    note = kept / f"{re.sub(r'[^0-9a-f]', '', image)[-64:]}.json"
    try:
        return str(json.loads(note.read_text())["jupyter"])
    except (OSError, ValueError, KeyError):
        found = ask_a_shell(client, image, labels)
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = note.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps({"jupyter": found}))
    draft.replace(note)
    return found


def ask_a_shell(client: docker.APIClient, image: str, labels: dict[str, str]) -> str:
    """Run it without network, and confined as a session is. An image without a shell has no Jupyter either."""
    import docker
    from requests.exceptions import RequestException

    limits = client.create_host_config(
        network_mode="none", cap_drop=["ALL"], security_opt=["no-new-privileges"], mem_limit="512m", memswap_limit="512m",
        pids_limit=64, read_only=True, log_config={"Type": "json-file", "Config": {"max-size": "64k"}},
    )  # fmt: skip
    asked = {"entrypoint": ["/bin/sh"], "labels": labels, "host_config": limits}
    made = client.create_container(image, ["-lc", LOOK], **asked)["Id"]
    try:
        client.start(made)
        client.wait(made, timeout=LOOK_SECONDS)
        said = client.logs(made, stdout=True, stderr=False).decode(errors="replace")
    except docker.errors.APIError:  # there is no /bin/sh
        return ""
    except RequestException as slow:
        raise Failed(f"A login shell in this image does not end within {LOOK_SECONDS} seconds.") from slow
    finally:
        client.remove_container(made, force=True, v=True)
    return next((line[6:].strip() for line in said.splitlines() if line.startswith("found ")), "")


def uses_socket(jupyter: str) -> bool:
    """Whether it can serve on a unix socket, which nobody else on this computer or in another container can open."""
    return jupyter in ("lab", "server") or major(jupyter) >= 7


def major(jupyter: str) -> int:
    """Of `notebook 6.5.2` the 6; 0 of anything else."""
    found = re.fullmatch(r"notebook (\d+)\..*", jupyter)
    return int(found[1]) if found else 0


def command(jupyter: str, config: dict[str, Any], *, on_socket: bool) -> list[str] | None:
    """What follows the image's entry point; None for the image's own command. Raises Failed where it has none.

    The token comes by $JUPYTER_TOKEN, never as an argument.
    """
    root = ["--allow-root"] if runs_as_root(config) else []
    if jupyter:
        app = "ServerApp" if uses_socket(jupyter) else "NotebookApp"
        at = [f"--{app}.sock={SOCKET}", f"--{app}.sock_mode=0666"] if on_socket else ["--ip=0.0.0.0", f"--port={PORT}"]
        return [
            *(f"jupyter-{jupyter.partition(' ')[0]}", "--no-browser", *root, *at),
            *(f"--{app}.base_url=/", f"--{app}.allow_remote_access=True", f"--{app}.port_retries=0"),
        ]
    own = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    if not own or (len(own) == 1 and Path(own[0]).name in ONLY_TALK):
        raise Failed(
            "This image has nothing to open: it has no Jupyter, and no command of its own that serves. "
            f"Install jupyterlab in it, or end its Dockerfile with a CMD that serves on port {PORT}."
        )
    return None


def port_of(config: dict[str, Any]) -> int:
    """Ours where it is exposed or none is; else the lowest that is."""
    exposed = sorted(int(name.partition("/")[0]) for name in config.get("ExposedPorts") or {} if name.endswith("/tcp"))
    return PORT if not exposed or PORT in exposed else exposed[0]


def runs_as_root(config: dict[str, Any]) -> bool:
    return str(config.get("User") or "root").partition(":")[0] in ("root", "0")


def shares_folders(about: dict[str, Any], platform: str = sys.platform) -> bool:
    """Whether a socket in a shared folder works: not where the engine has a virtual machine of its own."""
    return platform.startswith("linux") and "Desktop" not in str(about.get("OperatingSystem"))


def reach(about: dict[str, Any], platform: str = sys.platform) -> str:
    """How this computer reaches a container's port: "direct", or "published" on loopback, where its network is elsewhere."""
    rootless = "rootless" in " ".join(about.get("SecurityOptions") or [])
    return "published" if rootless or not shares_folders(about, platform) else "direct"


def environment(run: dict[str, Any]) -> dict[str, str]:
    """What the container is told beyond what its image says. What the broker says of the launch comes first, so that it
    cannot replace what we say. HOME stays the image's own.
    """
    told = {str(name): str(value) for name, value in run["env"].items() if re.fullmatch(r"[A-Z][A-Z0-9_]*", str(name))}
    proxies = {
        name: value for name in programs.NETWORK if "proxy" in name.lower() and (value := programs.variable(name))
    }
    return {
        **proxies,
        **told,
        "PORT": str(run["port"]),
        "ANYBINDER_SOCKET": SOCKET,
        "JUPYTER_TOKEN": programs.variable("JUPYTER_TOKEN"),
    }
