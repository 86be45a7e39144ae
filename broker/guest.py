"""The guest: a session on a server that its person made, as that person, in one folder that is removed at its end.

The line that a person pastes (pasting.py) fetches this by its digest and calls `main` with what an agent is told at birth.
Standard library only, Python 3.8 and later. It is never root, changes nothing of the system, and switches nothing off. What
a session needs that is not there is said, not installed.
"""

import contextlib
import fcntl
import getpass
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request

PYTHON = (3, 11)
PATH_MOST = 90  # characters of a socket's path; systems take 107
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
PASSED_ON = (  # noqa: SIM905 -- thirty quotes say no more
    "PATH LANG LC_ALL LC_CTYPE TZ USER LOGNAME SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE PIP_CERT "
    "GIT_SSL_CAINFO NODE_EXTRA_CA_CERTS http_proxy https_proxy no_proxy all_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY"
).split()
"""All that programs of the session see of the shell that the line was pasted into: what else is there may be secret."""
TOLD = ("broker", "order", "token", "until", "silence_seconds", "broker_key")


def main(told):
    """Start the session and return, so that its person may log out: the exit status, with a sentence either way."""
    why = unfit()
    if why:
        return refuse(why)
    place = os.path.join(os.path.expanduser("~"), ".anybinder")
    os.makedirs(place, mode=0o700, exist_ok=True)
    home = os.path.join(place, told["order"])
    starting = held(place)
    sweep(place)
    try:
        os.makedirs(home, mode=0o700)
    except FileExistsError:
        return refuse("this line was pasted here before, and works once. Launch again")
    lock = held(home)
    os.close(starting)
    try:
        for name in ("agent.py", "machine.py"):
            put(os.path.join(home, name), fetch(told, name))
        put(
            os.path.join(home, "parcels.json"),
            json.dumps({name: told[name] for name in ("broker", "files", "order")}).encode(),
        )
    except (OSError, ValueError) as fault:
        remove(home)
        return refuse("the session's programs are not to be had: %s" % getattr(fault, "reason", fault))
    if os.fork() == 0:
        stay(told, home, lock)
    print("Anybinder: the session starts here, as %s, in %s." % (getpass.getuser(), home))
    print("At its end its processes are ended and that folder is removed. You may log out.")
    return 0


def unfit():
    """Why nothing can run here; empty where it can."""
    if os.geteuid() == 0:
        return (
            "you are root here, and a stranger's code must not be: log in as an ordinary user and paste the line again"
        )
    if sys.version_info < PYTHON:
        return "this server has Python %d.%d, and a session needs 3.11 or newer" % sys.version_info[:2]
    return ""


def refuse(why):
    print("Anybinder: %s. Nothing was started." % why, file=sys.stderr)
    return 1


def stay(told, home, _lock):
    """Behind the shell, until the agent has ended; then nothing of it is left. Does not return."""
    try:
        os.setsid()
        os.chdir("/")
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        log = os.open(os.path.join(home, "log"), os.O_WRONLY | os.O_CREAT, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, where in ((0, nothing), (1, log), (2, log)):
            os.dup2(where, number)
        run(told, home)
    finally:
        remove(home)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(home))  # where no other session is there
        os._exit(0)


def run(told, home):
    """The agent, from its start to its end."""
    runtime = os.path.join(home, "s")
    if len(os.path.join(runtime, "s.sock")) > PATH_MOST:
        runtime = tempfile.mkdtemp(prefix="anybinder-")
    folders = {name: os.path.join(home, name) for name in ("agent", "session", "cache")}
    for folder in (*folders.values(), runtime):
        os.makedirs(folder, mode=0o700, exist_ok=True)
    boot = {name: told[name] for name in TOLD if name in told}
    boot.update(
        home=folders["agent"],
        work=folders["session"],
        cache=folders["cache"],
        runtime=runtime,
        builder=[sys.executable, "-I", os.path.join(home, "builder", "broker", "environments")],
        bring=[sys.executable, "-I", os.path.join(home, "machine.py"), "--bring"],
        tcp_servers=False,  # others may be on this server
        python_downloads=True,
    )
    path = os.path.join(home, "boot.json")
    put(path, json.dumps(boot).encode())
    # What programs keep in a home folder, as uv does, belongs to the session.
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    if os.path.exists(AUTHORITIES):
        env.setdefault("SSL_CERT_FILE", AUTHORITIES)  # all that we start trusts whom this server trusts
    env.update(ANYBINDER_GUEST_HOME=home, HOME=folders["cache"])
    env["PATH"] = os.path.join(home, "bin") + ":" + env.get("PATH", os.defpath)  # where uv is put
    command = [sys.executable, "-I", "-S", os.path.join(home, "agent.py"), path]
    agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=env, cwd=home)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.terminate())
    try:
        agent.wait()
    finally:
        remove(runtime)


def held(folder):
    """This folder, opened, and locked for as long as we live or it is open; waited for."""
    opened = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):  # some network file systems lock no folders
        fcntl.flock(opened, fcntl.LOCK_EX)
    return opened


def sweep(place):
    """Remove what sessions have left behind that could not do it themselves: killed, or the server was switched off."""
    for each in os.scandir(place):
        opened = os.open(each.path, os.O_RDONLY)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # it lives, or nobody can say
        finally:
            os.close(opened)
        remove(each.path)


def fetch(told, name):
    """The broker's file of this name, which is the one that was ordered. Raises OSError, ValueError."""
    with urllib.request.urlopen("%s/agent/files/%s" % (told["broker"], told["files"][name]), timeout=30) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != told["files"][name]:
        raise ValueError("what was sent as %s is not what was ordered: its digest is wrong" % name)
    return content


def put(path, content):
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def remove(folder):
    """All of it, also where a program has taken its own right to write away; nothing that a link leads to."""
    for place, folders, _ in os.walk(folder):
        for each in (os.path.join(place, name) for name in folders):
            if not os.path.islink(each):
                with contextlib.suppress(OSError):
                    os.chmod(each, 0o700)
    shutil.rmtree(folder, ignore_errors=True)
