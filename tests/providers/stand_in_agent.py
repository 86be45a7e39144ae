"""Stands in for the agent: claims its home as the real one does, then behaves as the boot configuration's `behave` says.

Runs as a program. `behave` is a list of: stubborn (ignores SIGTERM), exit (ends at once, with a last line), child (starts
one), washed (a child without mark, in a session of its own), orphan (ends at once, leaves a child), socket (listens), slow
(never claims its home).
"""

# ruff: noqa: PTH123, PTH108
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys

with open(sys.argv[1]) as file:
    boot = json.load(file)
home, behave = boot["home"], boot.get("behave", [])
if "slow" in behave:
    signal.pause()
lock = os.open(home + "/agent.lock", os.O_RDWR | os.O_CREAT, 0o600)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    claim = os.open(home + "/pid", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
except OSError:
    sys.exit(4)
os.write(claim, b"%d\n" % os.getpid())
os.unlink(sys.argv[1])

if "stubborn" in behave:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "socket" in behave:
    server = socket.socket(socket.AF_UNIX)
    server.bind(boot["runtime"] + "/s.sock")
    server.listen()
SLEEP = ["/bin/sleep", "600"]
if "child" in behave or "orphan" in behave:
    subprocess.Popen(SLEEP)
if "washed" in behave:
    subprocess.Popen(SLEEP, env={}, start_new_session=True)
print("standing in", flush=True)
with open(home + "/ready", "w"):
    pass
if "exit" in behave or "orphan" in behave:
    print("the stand-in has nothing to do", flush=True)
    os._exit(0)
signal.pause()
