"""The machine: makes a bought machine fit for its agent, runs the agent, and is over when the agent is.

    python3 machine.py BOOT.json       as root, from the boot data (broker/bootstrap.py); whoever started it powers off then
    python3 machine.py --bring WHAT …  brings what a build needs (bringing.py); the agent asks for it

One file, standard library only, Python 3.8 and later. What it does is told on the console, line by line, so that a machine
which never dials out explains itself. The session's user can read nothing of it: what is secret lies in memory or in files
of root's, and no process of that user's reaches a cloud's metadata.
"""

import contextlib
import gzip
import hashlib
import io
import ipaddress
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request

HOME = os.environ.get("ANYBINDER_GUEST_HOME") or "/var/lib/anybinder"
GUEST = "ANYBINDER_GUEST_HOME" in os.environ
"""It is somebody's own server, and we are a guest there (guest.py): nothing of it is changed."""
RUN = "/run/anybinder"
USER = "anybinder"
SHELL = "/bin/bash"
PROCESSES = 4096  # of the session's user: far above any notebook, far below a fork bomb's harm
BUILDER = os.path.join(HOME, "builder", "broker", "environments")
ENGINE = "/var/run/docker.sock"
BASE_IMAGE = (
    "docker.io/library/buildpack-deps:jammy"  # repo2docker's own, as on this computer (providers/local/engine.py)
)
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
METADATA = (
    "169.254.0.0/16",  # link-local: most clouds' metadata
    "168.63.129.16/32",  # Azure's inner services
    "100.100.100.200/32",  # Alibaba's metadata
)
METADATA_IPV6 = ("fd00:ec2::/32", "fd20:ce::254/128", "fe80::/10")  # Amazon's, Google's, OpenStack's
RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
DEAD_MAN_SECONDS = 300  # that deleting itself is tried for, before it merely goes off
BEGAN = time.time()


class Trouble(Exception):
    """It cannot go on; the sentence says why."""


# --------------------------------------------------------------------------------------------------------------------
# Its life


def main(arguments):
    """The exit status: the agent's own, or 1 where none could be started."""
    if arguments[:1] == ["--bring"]:
        return bring(arguments[1:])
    with open(arguments[0], encoding="utf-8") as file:
        told = json.load(file)
    os.unlink(arguments[0])
    will = Will()
    try:
        return live(told, will)
    except Exception as fault:  # noqa: BLE001 -- whatever it was, the console must tell
        say("failed: %s" % (fault if isinstance(fault, Trouble) else "%s: %s" % (type(fault).__name__, fault)))
        time.sleep(float(told["linger_seconds"]))
        return 1
    finally:
        will.execute()


def live(told, will):
    """From here to the agent's end."""
    close_doors()
    user = make_user()
    make_folders(user)
    fence(user)
    put("agent.py", fetch(told, "agent.py"))
    put("machine.py", read(os.path.abspath(__file__)))
    put("parcels.json", json.dumps({name: told[name] for name in ("broker", "files", "order")}).encode())
    status = run_agent(told, user, will)
    say("the agent has ended (%d)" % status)
    if status in (2, 3, 5):
        time.sleep(float(told["linger_seconds"]))
    return status


def close_doors():
    """cloud-init keeps what this machine was told, and with it the enrolment token. Its files are root's; so are its folders."""
    for folder in ("/var/lib/cloud", "/run/cloud-init"):
        with contextlib.suppress(OSError):
            os.chmod(folder, 0o700)


def make_user():
    """The user of the session, without any right of its own."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(USER)
    home = os.path.join(HOME, "cache")
    run(["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", home, "--shell", SHELL, USER])
    return pwd.getpwnam(USER)


def make_folders(user):
    """Ours, which others pass through, and the session's own."""
    for folder in (HOME, RUN):
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o711)
    os.makedirs(os.path.join(HOME, "agent"), mode=0o700, exist_ok=True)
    for folder in (os.path.join(HOME, "session"), os.path.join(HOME, "cache"), os.path.join(RUN, "s")):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.chown(folder, user.pw_uid, user.pw_gid)


def run_agent(told, user, will):
    """Start it, and wait for its end; its status. What it leaves to the machine is taken from a pipe, and is in no file."""
    mine, its = os.pipe()
    os.set_inheritable(its, True)
    boot = {
        name: told[name]
        for name in ("broker", "order", "token", "until", "silence_seconds", "broker_key")
        if name in told
    }
    boot.update(
        home=os.path.join(HOME, "agent"),
        work=os.path.join(HOME, "session"),
        cache=os.path.join(HOME, "cache"),
        runtime=os.path.join(RUN, "s"),
        builder=[sys.executable, "-I", BUILDER],
        bring=[sys.executable, "-I", os.path.join(HOME, "machine.py"), "--bring"],
        user={"name": user.pw_name, "uid": user.pw_uid, "gid": user.pw_gid},
        rlimits={"CORE": 0, "NPROC": PROCESSES},
        tcp_servers=True,  # nobody else is on this machine
        python_downloads=True,
        will=its,
    )
    path = put(os.path.join("agent", "boot.json"), json.dumps(boot).encode(), mode=0o600)
    say("starting the agent")
    command = [sys.executable, "-I", "-S", os.path.join(HOME, "agent.py"), path]
    agent = subprocess.Popen(command, pass_fds=[its], stdin=subprocess.DEVNULL, env=environment(), cwd=HOME)
    os.close(its)
    signal.signal(signal.SIGTERM, lambda *_: agent.terminate())
    reading = threading.Thread(target=will.read_from, args=(mine,), daemon=True)
    reading.start()
    status = agent.wait()
    reading.join(timeout=2)  # its last line may still be on the way
    return status


def environment():
    """What the image says of its surroundings, our programs' folder, and whom it trusts: all that we start trusts the same."""
    env = {name: value for name, value in os.environ.items() if name not in ("INVOCATION_ID", "JOURNAL_STREAM")}
    env["PATH"] = os.path.join(HOME, "bin") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    if os.path.exists(AUTHORITIES):
        env.setdefault("SSL_CERT_FILE", AUTHORITIES)
    return env


# --------------------------------------------------------------------------------------------------------------------
# Its end


class Will:
    """What this machine deletes itself with, where its cloud does not do that when it goes off. In memory only."""

    def __init__(self):
        self._requests = []

    def read_from(self, pipe):
        """Take what the agent hands over, the last one counts; until the agent is gone."""
        with os.fdopen(pipe, encoding="utf-8") as lines:
            for line in lines:
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    self._requests = list(json.loads(line)["requests"])

    def execute(self):
        """Send them in their order, again and again until each has succeeded or the time is over. Nothing is raised."""
        if not self._requests:
            return
        say("deletes itself")
        give_up = time.monotonic() + DEAD_MAN_SECONDS
        pause = 1.0
        while time.monotonic() < give_up:
            why = attempt(self._requests)
            if why is None:
                say("has deleted itself")
                return
            say("cannot delete itself yet: " + why)
            time.sleep(pause)
            pause = min(30.0, 2 * pause)


def attempt(requests):
    """None where each of them was answered with success; else why not, without a word of what they hold."""
    kept = {}
    for number, each in enumerate(requests, start=1):
        try:
            status, headers = send(each, kept)
        except (OSError, ValueError) as fault:
            return "request %d: %s" % (number, getattr(fault, "reason", None) or type(fault).__name__)
        if not (200 <= status < 300 or status in (404, 410)):
            return "request %d is answered %d" % (number, status)
        for name, told in (each.get("keep") or {}).items():
            kept[name] = headers.get(told) or ""
    return None


def send(each, kept):
    """(status, headers) of one request."""
    body = each.get("body")
    headers = dict(each.get("headers") or {}, **kept)
    asked = urllib.request.Request(
        each["url"], data=body.encode() if body else None, headers=headers, method=each["method"]
    )
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.headers


# --------------------------------------------------------------------------------------------------------------------
# The fence


def fence(user):
    """No process of this user's reaches a cloud's metadata. Raises Trouble where that cannot be had."""
    made = [each.__name__ for each in (fence_by_nft, fence_by_iptables, fence_by_routes) if tried(each, user.pw_uid)]
    if not made:
        raise Trouble("the session cannot be fenced off from the cloud's metadata: no nft, iptables or ip works here")
    for address in ("169.254.169.254", "fd00:ec2::254"):
        if reaches(user, address):
            raise Trouble("the session would reach the cloud's metadata at %s all the same" % address)


def tried(way, uid):
    try:
        way(uid)
    except FileNotFoundError:
        return False
    except (OSError, subprocess.SubprocessError) as fault:
        say("one of several fences cannot be made: %s" % fault)
        return False
    return True


def fence_by_nft(uid):
    servers = [(each, "ip" if each.version == 4 else "ip6") for each in name_servers()]
    names = ["%s daddr %s %s dport 53 accept" % (kind, each, way) for each, kind in servers for way in ("udp", "tcp")]
    rules = [
        "type filter hook output priority -5; policy accept;",
        "meta skuid != %d accept" % uid,
        *names,
        "ip daddr { %s } reject" % ", ".join(METADATA),
        "ip6 daddr { %s } reject" % ", ".join(METADATA_IPV6),
    ]
    text = "table inet anybinder {}\ndelete table inet anybinder\ntable inet anybinder {\nchain out {\n%s\n}\n}\n"
    run(["nft", "-f", "-"], given=text % "\n".join(rules))


def fence_by_iptables(uid):
    for program, version, refused in (("iptables", 4, METADATA), ("ip6tables", 6, METADATA_IPV6)):
        names = [
            "-A ANYBINDER-USER -d %s -p %s --dport 53 -j RETURN" % (each, way)
            for each in name_servers()
            if each.version == version
            for way in ("udp", "tcp")
        ]
        refuse = ["-A ANYBINDER-USER -d %s -j REJECT" % each for each in refused]
        lines = ["*filter", ":ANYBINDER-USER - [0:0]", *names, *refuse, "COMMIT", ""]
        run([program + "-restore", "--wait", "--noflush"], given="\n".join(lines))
        lead = ["OUTPUT", "-m", "owner", "--uid-owner", str(uid), "-j", "ANYBINDER-USER"]
        if subprocess.run([program, "--wait", "-C", *lead], stderr=subprocess.DEVNULL, check=False).returncode:
            run([program, "--wait", "-I", *lead])


def fence_by_routes(uid):
    """Needs no packet filter, which some images have not. As the kernel's own, for networkd takes away what it does not know."""
    for flag, version, refused in (("-4", 4, METADATA), ("-6", 6, METADATA_IPV6)):
        rule = ["ip", flag, "rule"]
        while subprocess.run([*rule, "del", "pref", "90"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            pass
        whose = ["uidrange", "%d-%d" % (uid, uid), "protocol", "kernel"]
        for server in name_servers():
            if server.version == version and any(server in ipaddress.ip_network(each) for each in refused):
                for way in ("udp", "tcp"):
                    port = ["ipproto", way, "dport", "53"]
                    run([*rule, "add", "pref", "89", "to", str(server), *whose, *port, "lookup", "main"])
        for each in refused:
            run([*rule, "add", "pref", "90", "to", each, *whose, "prohibit"])


def name_servers():
    """Those of this machine: some clouds answer names where they answer metadata."""
    found = []
    for file in RESOLVERS:
        with contextlib.suppress(OSError, ValueError):
            words = [line.split() for line in read(file).decode("utf-8", "replace").splitlines()]
            found += [ipaddress.ip_address(each[1].partition("%")[0]) for each in words if each[:1] == ["nameserver"]]
    return list(dict.fromkeys(found))


def reaches(user, address):
    """Whether a process of this user's gets through to a web server there."""
    child = os.fork()
    if child == 0:
        reached = 0
        try:
            os.setgroups([])
            os.setgid(user.pw_gid)
            os.setuid(user.pw_uid)
            socket.create_connection((address, 80), timeout=1).close()
            reached = 1
        except OSError:
            pass
        finally:
            os._exit(reached)
    return os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 1


# --------------------------------------------------------------------------------------------------------------------
# Fetching


def fetch(told, name):
    """The broker's file of this name, which is the one that was ordered or none. Raises Trouble once the time is over."""
    digest = told["files"][name]
    give_up = time.monotonic() + float(told.get("patience_seconds", 60))
    said = None
    while True:
        try:
            with urllib.request.urlopen("%s/agent/files/%s" % (told["broker"], digest), timeout=30) as answer:
                content = answer.read()
            if hashlib.sha256(content).hexdigest() == digest:
                return content
            why = "what the broker sent as %s is not what was ordered: its digest is wrong" % name
        except (OSError, ValueError) as fault:
            reason = fault if hasattr(fault, "code") else getattr(fault, "reason", fault)
            why = "%s is not to be had from the broker: %s" % (name, reason)
        if why != said:
            say(why)
        said = why
        if time.monotonic() > give_up:
            raise Trouble(why)
        time.sleep(1)


def put(name, content, mode=0o644):
    """Write it below our folder, whole or not at all; its path."""
    path = os.path.join(HOME, name)
    draft = path + ".new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
    os.replace(draft, path)
    return path


def read(path):
    """The bytes of this file."""
    with open(path, "rb") as file:
        return file.read()


# --------------------------------------------------------------------------------------------------------------------
# What a build needs (bringing.py)


def bring(wanted):
    """Become the program that brings it, of the builder's own version."""
    told = json.loads(read(os.path.join(HOME, "parcels.json")).decode())
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(fetch(told, "builder.tar.gz")))) as archive:
        for entry in archive:
            path = os.path.join("builder", entry.name)
            os.makedirs(os.path.join(HOME, os.path.dirname(path)), exist_ok=True)
            put(path, archive.extractfile(entry).read())
    program = os.path.join(HOME, "builder", "broker", "bringing.py")
    os.execv(sys.executable, [sys.executable, "-I", program, *wanted])


# --------------------------------------------------------------------------------------------------------------------
# Small things


def run(command, given=None):
    """Raises OSError or SubprocessError, with what it said last."""
    env = dict(environment(), LC_ALL="C.UTF-8")
    ended = subprocess.run(
        command,
        input=given,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        check=False,
    )
    if ended.returncode:
        last = (ended.stdout.strip().splitlines() or ["no reason given"])[-1]
        raise OSError("%s: %s" % (command[0], last))


def began():
    """When this machine armed its switch, which all lines count from."""
    with contextlib.suppress(OSError, ValueError):
        return float(read(os.path.join(RUN, "began")))
    return BEGAN


def say(what):
    """A line for the console."""
    print("anybinder: [%d s] %s" % (time.time() - began(), what), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
