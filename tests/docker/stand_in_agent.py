"""Stands in for the agent of a containers' backend: claims its home, makes its container, and never removes it.

Runs as a program. `behave` in the boot configuration: slow (never claims its home).
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

boot = json.loads(Path(sys.argv[1]).read_text())
if "slow" in boot["behave"]:
    signal.pause()
home = Path(boot["home"])
lock = os.open(home / "agent.lock", os.O_RDWR | os.O_CREAT, 0o600)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (home / "pid").open("x") as file:
        file.write(f"{os.getpid()}\n")
except OSError:
    sys.exit(4)
Path(sys.argv[1]).unlink()
engine = boot["engine"]
labels = [word for name, value in engine["labels"].items() for word in ("--label", f"{name}={value}")]
subprocess.run(
    ["docker", "--host", engine["url"], "run", "--detach", "--network=none", *labels, boot["image"], "sleep", "600"],
    check=True,
)
signal.pause()
