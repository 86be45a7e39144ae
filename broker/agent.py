"""The agent: runs on the instance, builds, starts and watches one session, and dials out to the broker.

    python agent.py BOOT.json

One file, standard library only, Python 3.8 and later, so that it can be sent to any machine. It reads the boot
configuration (docs/architecture.md, "the agent") and unlinks it, enrols once, has the builder make the environment,
starts the server, keeps the tunnel's streams parked, and reports. It ends everything at the deadline, when told, when
the broker revokes it or is silent for too long; whatever ends it, nothing that it started is left.

Two processes share that work. The *guardian* (the pid in `home/pid`) holds `home/agent.lock` and waits; the *worker*
does all the rest. Whichever dies, by SIGKILL too, the other ends what is left.

Exit status: 0 ended as told or at the deadline; 1 the launch failed and the broker knows; 2 wrong usage; 3 refused or
revoked by the broker; 4 this home has had an agent before: nothing was done; 5 the broker fell silent, or a fault.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import datetime
import fcntl
import hashlib
import hmac
import json
import os
import re
import resource
import secrets
import select
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import traceback
import urllib.parse

GRACE_SECONDS = 5  # between SIGTERM and SIGKILL; Jupyter needs about one to end its kernels
START_SECONDS = 120  # a server that does not answer within this has failed
PORT_GRACE_SECONDS = 2  # a server may open a port of its own before it opens our socket
REPORT_SPACING = 0.2  # at most five reports a second,
REPORTS_AT_ONCE = 5  # but the first few without waiting: a session that is up shall not wait to say so
LINE_CHARACTERS = 2000
BATCH_LINES = 500
BATCH_BYTES = 200_000
LOG_LINES = 10_000  # of one launch: a table is no place for an endless loop's output
STALE_SECONDS = 80  # three missed pings of 25 s
DIAL_SECONDS = 15
AHEAD_STREAMS = 64
HIGH_WATER = 512 * 1024  # bytes waiting in one direction before the sender is paused
MARK = "ANYBINDER_INSTANCE"  # carried by every process of the order, so that whoever sweeps finds them

PASSED_ON = (  # noqa: SIM905 -- thirty lines of quotes say no more
    "PATH LANG LC_ALL LC_CTYPE TZ USER LOGNAME SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE PIP_CERT "
    "GIT_SSL_CAINFO NODE_EXTRA_CA_CERTS http_proxy https_proxy no_proxy all_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY "
    "ALL_PROXY LD_LIBRARY_PATH"
).split()
"""All that a stranger's code sees of our own environment."""


# --------------------------------------------------------------------------------------------------------------------
# Birth: one agent per home, a guardian and a worker


def main(arguments):
    """Be the agent of this boot configuration; returns the exit status."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    boot = Boot.read(arguments[0])
    lock = claim(boot.home)
    if lock is None:
        print("anybinder agent: this home has had an agent before", file=sys.stderr)
        return 4
    os.unlink(arguments[0])
    with contextlib.suppress(PermissionError):
        os.setsid()
    os.environ[MARK] = boot.order
    become_subreaper()
    raise_limits()
    return guard(boot)


class Boot:
    """What the agent is told at birth. Shows nothing secret in its `repr`."""

    def __init__(self, told):
        self.broker = told["broker"].rstrip("/")
        self.order = told["order"]
        self.token = told["token"]
        self.until = Deadline(told["until"])
        self.silence_seconds = float(told["silence_seconds"])
        self.home = told["home"]
        self.runtime = told["runtime"]
        self.cache = told["cache"]
        self.builder = list(told["builder"])
        self.broker_key = told.get("broker_key")
        self.tcp_servers = bool(told.get("tcp_servers", False))
        self.python_downloads = bool(told.get("python_downloads", False))
        self.engine = told.get("engine")
        self.rlimits = dict(told.get("rlimits") or {})
        self.cgroups = list(told.get("cgroup") or [])
        # On a machine of its own the agent is root, and what it starts is not.
        self.work = told.get("work", self.home)
        self.user = told.get("user")
        self.bring = list(told.get("bring") or [])
        self.will = told.get("will")

    @classmethod
    def read(cls, path):
        with open(path, encoding="utf-8") as file:
            return cls(json.load(file))


def claim(home):
    """A lock held for life by the first agent of this home; None for any later one, also after the first has ended."""
    lock = os.open(os.path.join(home, "agent.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    draft = os.path.join(home, "pid.%d" % os.getpid())
    with open(draft, "w", encoding="ascii") as file:
        file.write("%d\n" % os.getpid())
    try:
        os.link(draft, os.path.join(home, "pid"))  # never overwrites, and is never seen half written
    except FileExistsError:
        os.close(lock)
        return None
    finally:
        os.unlink(draft)
    return lock


def guard(boot):
    """Start the worker, wait for its end, then end all that is left of the order. Returns the worker's status."""
    guardian = os.getpid()
    worker = os.fork()
    if worker == 0:
        status = 5
        try:
            status = work(boot, guardian)
        except BaseException:  # noqa: BLE001 -- whatever it was, the guardian must see an end
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    status = wait_for_worker(worker, boot)
    end_all(boot, spare={guardian})
    if boot.engine:
        end_containers(boot)
        end_all(boot, spare={guardian})
    return status


def end_containers(boot):
    """A container is the engine's child, not ours: it outlives what made it, unless that could remove it in time."""
    told = json.dumps({"engine": boot.engine, "order": boot.order})
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = boot.builder + ["--sweep"]
        subprocess.run(command, input=told.encode(), cwd=boot.home, timeout=4 * GRACE_SECONDS, check=False)


def wait_for_worker(worker, boot):
    """The worker's exit status. Passes SIGTERM on; kills a worker that outlives its grace or the order."""
    kill_at = [boot.until.monotonic + 4 * GRACE_SECONDS]

    def tell(_signal, _frame):
        kill_at[0] = min(kill_at[0], time.monotonic() + 3 * GRACE_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGTERM)

    def check(_signal, _frame):
        if time.monotonic() > kill_at[0]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, tell)
    signal.signal(signal.SIGALRM, check)
    signal.setitimer(signal.ITIMER_REAL, 2, 2)
    status = 0
    pid = None
    while pid != worker:
        pid, status = os.waitpid(-1, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 5


def work(boot, guardian):
    """The worker's whole life; returns the exit status."""
    die_with_parent(signal.SIGTERM)
    become_subreaper()
    if os.getppid() != guardian:
        return 5
    try:
        # Not `asyncio.run`: that would wait for a name look-up that is still on its way.
        return asyncio.new_event_loop().run_until_complete(live(boot))
    finally:
        end_all(boot, spare={guardian, os.getpid()})


# --------------------------------------------------------------------------------------------------------------------
# The agent's life


async def live(boot):
    """The agent is made inside its loop: before Python 3.10 an event belongs to the loop it was made in."""
    return await Agent(boot).run()


class Agent:
    """One launch on this instance, from enrolment to the end."""

    def __init__(self, boot):
        self.boot = boot
        self.secret = secrets.token_urlsafe(32)
        self.broker = Broker(boot.broker)
        self.deadline = boot.until
        self.silence_seconds = boot.silence_seconds
        self.heartbeat_seconds = 10.0
        self.heard = time.monotonic()
        self.journal = Journal(hidden=[boot.token, self.secret])
        self.wake = asyncio.Event()
        self.session = {}
        self.spec = {}
        self.key = None
        self.programs = []
        self.server = None
        self.tunnel = None
        self.packer = None
        self.failed_at = None
        self.willed = False
        self.tasks = set()

    async def run(self):
        """Live until something ends it; returns the exit status once the server has had its grace."""
        loop = asyncio.get_running_loop()
        self.over = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.end, 0, "told to end")
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        self.spawn(self._watch())
        self.spawn(self._live())
        status = await self.over
        for task in self.tasks:
            task.cancel()
        await self._end_programs()
        return status

    def end(self, status, why):
        """End everything. The first reason counts."""
        if not self.over.done():
            say("ending: " + why)
            self.over.set_result(status)

    def fail(self, sentence):
        """Tell the broker that the launch failed; the end comes when it knows."""
        if self.failed_at is None:
            self.failed_at = self.journal.add("failed", sentence)
            self.wake.set()
            for program in self.programs:
                program.tell_to_end()

    def note(self, phase, message, image=None):
        """One progress line for the person, and the image that it speaks of."""
        if self.failed_at is None:
            self.journal.add(phase, message, image)
            self.wake.set()

    def spawn(self, coroutine):
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task):
        self.tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        fault = task.exception()
        traceback.print_exception(type(fault), fault, fault.__traceback__)
        self.end(5, "a fault of the agent's own")

    async def _watch(self):
        """Ends everything at the deadline, and when the broker has been silent for too long.

        Silence is counted by the monotonic clock: a laptop that was asleep was not left alone by its broker. The
        deadline is an instant: time asleep counts, and a clock that is set back does not postpone it.
        """
        while True:
            await asyncio.sleep(min(1.0, self.silence_seconds / 10))
            if self.deadline.passed() or self.boot.until.passed():
                self.end(0, "the deadline has come")
            if time.monotonic() - self.heard > self.silence_seconds:
                self.end(5, "the broker has been silent for %d seconds" % self.silence_seconds)

    async def _live(self):
        if not await self._enrol():
            return
        self.spawn(self._report())
        self.tunnel = Tunnel(self.boot.broker, self.session["id"], self.session["secret"], self._connect)
        self.tunnel.pack = self._pack
        self.spawn(self._keep_tunnel())
        command = await self._build()
        if command and not self.spec.get("build_only"):
            await self._serve(command)

    # Enrolment and reports

    async def _enrol(self):
        """Trade the one-time token for the session; repeats until answered. False when refused."""
        nonce = secrets.token_hex(16)
        body = {"order": self.boot.order, "agent": self.secret, "nonce": nonce}
        for pause in backoff(0.1, 5):
            status, answer = await self.broker.post("/agent/enrol", self.boot.token, body)
            if status == 200:
                break
            if status in (401, 403, 410):
                self.end(3, "the broker refuses the enrolment (%d)" % status)
                return False
            await asyncio.sleep(pause)
        if not self._is_the_broker(nonce, answer):
            self.end(3, "what answered cannot prove that it is the broker")
            return False
        self._obey(answer)
        self.spec, self.session, self.key = answer["spec"], answer["session"], answer.get("key")
        self.heartbeat_seconds = float(answer["heartbeat_seconds"])
        self.silence_seconds = float(answer["silence_seconds"])
        self.journal.hidden += [self.session["secret"], self.session["server_token"], *spellings(self.key)]
        return True

    def _is_the_broker(self, nonce, answer):
        """It knows the token, as somebody may who has read our boot data, and holds the key that we were told at birth."""
        if not hmac.compare_digest(proof(self.boot.token, nonce), str(answer.get("proof"))):
            return False
        said = "%s %s" % (self.boot.order, nonce)
        return not self.boot.broker_key or signed(self.boot.broker_key, said, str(answer.get("signature")))

    def _obey(self, answer):
        """What every answer of the broker may carry: a deadline, never beyond `until`, and a command."""
        self.heard = time.monotonic()
        if "deadline" in answer and answer["deadline"] != self.deadline.text:
            self.deadline = Deadline(answer["deadline"])
        if self.boot.will is not None and answer.get("dead_man"):
            # For who outlives us, through a pipe: it is in no file, and no longer in our memory when a server runs.
            os.write(self.boot.will, json.dumps(answer["dead_man"]).encode() + b"\n")
            self.willed = True
        if answer.get("command") == "stop":
            self.end(0, "the broker says so")

    async def _report(self):
        """Tell the broker what happened: at once, but at most five times a second; else once per heartbeat."""
        pauses, spacing = backoff(0.5, 5), Spacing(REPORT_SPACING, REPORTS_AT_ONCE)
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.wake.wait(), self.heartbeat_seconds)
            await asyncio.sleep(spacing.pause())
            self.wake.clear()
            if await self._report_once():
                pauses = backoff(0.5, 5)
            else:
                await asyncio.sleep(next(pauses))
                self.wake.set()
            if self.journal.waiting():
                self.wake.set()

    async def _report_once(self):
        first, events = self.journal.batch()
        body = {"order": self.boot.order, "first": first, "events": events, "status": self._status()}
        if self.boot.will is not None:
            body["dead_man"] = self.willed
        status, answer = await self.broker.post("/agent/report", self.secret, body)
        if status in (401, 403, 410):
            self.end(3, "the broker has revoked this agent (%d)" % status)
        elif status in (400, 413, 422):  # a batch it will never take must not hold back what follows
            say("the broker does not take a report (%d)" % status)
            self.journal.acknowledge(first + len(events) - 1)
        elif status == 200:
            self.journal.acknowledge(int(answer.get("ack", 0)))
            self._obey(answer)
            if self.failed_at is not None and self.journal.first > self.failed_at:
                self.end(1, "the launch failed")
        return status == 200

    def _status(self):
        return self.server.status() if self.server else dict(NO_SERVER)

    async def _keep_tunnel(self):
        await self.tunnel.run()
        self.end(3, "the broker has revoked this session")

    # Building and serving

    async def _build(self):
        """The server's command as the builder leaves it; None when the build failed, or nothing is to be served."""
        # What opens the repository is in no file: the builder reads it from its standard input, and we forget it with that.
        given, spellings_of_it, self.key = json.dumps(self.key).encode() if self.key else b"", spellings(self.key), None
        try:
            if not await self._bring(self._needs()):
                return None
            builder = Builder(self)
            command = await self._run_builder(builder, given)
            if builder.wants_containers and await self._bring(["images"]):
                command = await self._run_builder(Builder(self), given)
            return command
        finally:
            self.journal.hidden = [word for word in self.journal.hidden if word not in spellings_of_it]

    async def _run_builder(self, builder, given):
        spec = dict(self.spec, home=self.boot.work, keyed=bool(given))
        for name in ("cache", "runtime", "python_downloads", "engine"):
            spec[name] = getattr(self.boot, name)
        path = os.path.join(self.boot.work, "spec.json")
        write_private(path, json.dumps(spec), self.user)
        try:
            return await builder.run(self.boot.builder + [path], float(self.spec["build_seconds"]), given)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _needs(self):
        """What the machine needs at the least; whether it takes containers to build is for the repository's files to say."""
        kind = (self.spec.get("content") or {}).get("kind", "git")
        if self.spec.get("build_only"):
            return ["images"]
        return {"git": ["python", "git"], "image": ["image"]}.get(kind, ["python"])

    async def _bring(self, what):
        """Have this machine get what a build needs; whether it is there. What keeps it from that has been told."""
        if not self.boot.bring:
            return True
        bringing = Builder(self, root=True)
        if not await bringing.bring(self.boot.bring + what, float(self.spec["build_seconds"])):
            return False
        self.boot.builder = bringing.brought.get("builder", self.boot.builder)
        self.boot.engine = bringing.brought.get("engine", self.boot.engine)
        return True

    @property
    def may_have_containers(self):
        """Whether a container engine can be had where none is yet."""
        return bool(self.boot.bring) and not self.boot.engine

    async def _serve(self, command):
        """Start the server, wait until it answers, then watch it for life."""
        self.note("launching", "Starting the server")
        self.server = Server(self, command)
        self.wake.set()
        fault = await self.server.start()
        self.wake.set()
        if fault:
            self.fail(fault)
            return
        self.note("launching", "The server answers")
        self.tunnel.nudge()
        await self.server.watch()

    async def _connect(self, factory):
        """Where a taken stream goes."""
        if self.server is None:
            raise ConnectionRefusedError("there is no server yet")
        return await self.server.connect(factory)

    async def _pack(self, factory):
        """Where a stream goes that was taken for the session's files: to a program that packs them, as long as it is read.

        There is one at a time: whoever asks later takes the place of who asked before. Raises OSError.
        """
        if self.server is None:
            raise ConnectionRefusedError("there is no server yet")
        if self.packer:
            self.packer.kill()
            await self.packer.exited.wait()
        ours, its = socket.socketpair()
        try:
            told = {"home": self.boot.work, "engine": self.boot.engine, "order": self.boot.order}
            command, given = self.boot.builder + ["--archive"], json.dumps(told).encode()
            self.packer = self.start(command, dict(os.environ), self.boot.work, its, Lines(say).feed, given)
            self.spawn(self._forget(self.packer))
            return await asyncio.get_running_loop().create_connection(factory, sock=ours)
        except BaseException:
            ours.close()
            raise
        finally:
            its.close()

    async def _forget(self, program):
        await program.end()
        self.programs.remove(program)

    # The end

    @property
    def user(self):
        """As whom a stranger's code runs; None for ourselves, because there is nobody else here, or a container around it."""
        return None if self.boot.engine else self.boot.user

    def start(self, argv, env, cwd, out, err, given=b"", root=False):
        """Start a program in a session of its own that dies with us. `given`: its standard input. Raises OSError."""
        user = None if root else self.user
        if user:
            env = dict(env, USER=user["name"], LOGNAME=user["name"])
            env.setdefault("HOME", self.boot.cache)
        limits = {} if root else self.boot.rlimits
        program = Program(argv, env, cwd, out=out, err=err, prepare=lambda: self._prepare(user, limits), given=given)
        self.programs.append(program)
        return program

    def _prepare(self, user, limits):
        """Runs in the child before its program: limits, cgroups, another user, and death with its parent."""
        for name, value in limits.items():
            number = getattr(resource, name if name.startswith("RLIMIT_") else "RLIMIT_" + name)
            hard = resource.getrlimit(number)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(number, (value, value))
        for path in self.boot.cgroups:  # where we may not: the provider has put us there, and a child stays with us
            with contextlib.suppress(OSError), open(os.path.join(path, "cgroup.procs"), "w", encoding="ascii") as file:
                file.write("0")
        if user:
            become(user)
        die_with_parent(signal.SIGKILL)  # last: who becomes another user forgets it

    def _reap(self):
        for program in self.programs:
            program.poll()
        reap(known={program.pid for program in self.programs if not program.exited.is_set()})

    async def _end_programs(self):
        """SIGTERM, some seconds of grace; what is still there dies in `end_all`."""
        for program in self.programs:
            program.tell_to_end()
        waits = [program.exited.wait() for program in self.programs]
        if waits:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.gather(*waits), GRACE_SECONDS)


class Deadline:
    """An instant that neither a suspended machine nor a clock set back can postpone."""

    def __init__(self, text):
        self.text = text
        self.wall = datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
        self.monotonic = time.monotonic() + self.wall - time.time()

    def passed(self):
        return time.time() >= self.wall or time.monotonic() >= self.monotonic


class Spacing:
    """Holds a rate: one every so many seconds, of which a few unused ones may come at once."""

    def __init__(self, seconds, at_once):
        self._seconds = seconds
        self._most = at_once
        self._left = float(at_once)
        self._then = time.monotonic()

    def pause(self):
        """Count one more, and say how long to wait before it."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._then) / self._seconds) - 1
        self._then = now
        return max(0.0, -self._left * self._seconds)


def proof(token, nonce):
    """What only a broker that knows the enrolment token can answer."""
    key = hashlib.sha256(token.encode()).digest()
    return hmac.new(key, nonce.encode("ascii"), "sha256").hexdigest()


def signed(key, text, signature):
    """Whether the holder of this Ed25519 key signed that (RFC 8032, 5.1.7). Standard Python has no such thing; once is enough."""
    try:
        key, signature = bytes.fromhex(key), bytes.fromhex(signature)
    except ValueError:
        return False
    public, commitment = ed_point(key), ed_point(signature[:32])
    number = int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or number >= ED_ORDER or public is None or commitment is None:
        return False
    told = int.from_bytes(hashlib.sha512(signature[:32] + key + text.encode()).digest(), "little") % ED_ORDER
    left, right = ed_times(ED_BASE, number), ed_sum(commitment, ed_times(public, told))
    return all((left[at] * right[2] - right[at] * left[2]) % ED_PRIME == 0 for at in (0, 1))


ED_PRIME = 2**255 - 19
ED_ORDER = 2**252 + 27742317777372353535851937790883648493
ED_D = -121665 * pow(121666, ED_PRIME - 2, ED_PRIME) % ED_PRIME


def ed_point(coded):
    """A point of the curve, as (X, Y, Z, T); None where these 32 bytes are none."""
    y = int.from_bytes(coded, "little") & (2**255 - 1)
    if len(coded) != 32 or y >= ED_PRIME:
        return None
    square = (y * y - 1) * pow(ED_D * y * y + 1, ED_PRIME - 2, ED_PRIME) % ED_PRIME
    x = pow(square, (ED_PRIME + 3) // 8, ED_PRIME)
    if (x * x - square) % ED_PRIME:
        x = x * pow(2, (ED_PRIME - 1) // 4, ED_PRIME) % ED_PRIME
    if (x * x - square) % ED_PRIME or (x == 0 and coded[31] >> 7):
        return None
    x = ED_PRIME - x if x & 1 != coded[31] >> 7 else x
    return x, y, 1, x * y % ED_PRIME


def ed_sum(one, other):
    a = (one[1] - one[0]) * (other[1] - other[0]) % ED_PRIME
    b = (one[1] + one[0]) * (other[1] + other[0]) % ED_PRIME
    c = 2 * one[3] * other[3] * ED_D % ED_PRIME
    d = 2 * one[2] * other[2] % ED_PRIME
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % ED_PRIME, g * h % ED_PRIME, f * g % ED_PRIME, e * h % ED_PRIME


def ed_times(point, number):
    total = (0, 1, 1, 0)
    while number:
        if number & 1:
            total = ed_sum(total, point)
        point, number = ed_sum(point, point), number >> 1
    return total


ED_BASE = ed_point((4 * pow(5, ED_PRIME - 2, ED_PRIME) % ED_PRIME).to_bytes(32, "little"))


def backoff(first, last):
    """Pauses that double, with some chance in them so that many agents do not come back at one instant."""
    pause = first
    while True:
        yield pause * (0.75 + secrets.randbelow(500) / 1000)
        pause = min(last, pause * 2)


# --------------------------------------------------------------------------------------------------------------------
# Lines for the person


class Journal:
    """Numbered progress events, kept until the broker acknowledges them."""

    def __init__(self, hidden):
        self.first = 1
        self.hidden = list(hidden)
        self._events = collections.deque()
        self._lines = 0

    def add(self, phase, message, image=None):
        """Neutralise and keep this event; returns its number."""
        for secret in self.hidden:
            message = message.replace(secret, "***")
        message = neutral(message)
        if phase != "failed":
            self._lines += 1
            if self._lines == LOG_LINES:
                message = "Further lines are left out."
            if self._lines > LOG_LINES:
                return self.first + len(self._events) - 1
        event = {"phase": phase, "message": message}
        self._events.append(dict(event, image=image) if image else event)
        return self.first + len(self._events) - 1

    def waiting(self):
        return bool(self._events)

    def batch(self):
        """The number of the first unacknowledged event, and as many events as one report may carry."""
        events, size = [], 0
        for event in self._events:
            size += len(event["message"]) * 3 + 40
            if events and (len(events) == BATCH_LINES or size > BATCH_BYTES):
                break
            events.append(event)
        return self.first, events

    def acknowledge(self, number):
        while self._events and self.first <= number:
            self._events.popleft()
            self.first += 1


ESCAPES = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|[\\]PX^_].*?(?:\x07|\x1b\\\\|$)|[ -/]*[0-~]|$)", re.DOTALL)
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
CREDENTIALS = re.compile(r"(\w://)[^/\s@]+@")


def neutral(text):
    """One line that a terminal or a page may show as it is: no escapes, no controls, no credentials, not too long."""
    text = ESCAPES.sub("", text[: 8 * LINE_CHARACTERS])
    text = text.rstrip("\r\n").rsplit("\r", 1)[-1]  # a progress bar is its last state
    text = CREDENTIALS.sub(r"\1***@", text)
    text = CONTROLS.sub("\ufffd", text.replace("\t", "    ").replace("\n", " "))
    return text if len(text) <= LINE_CHARACTERS else text[: LINE_CHARACTERS - 1] + "\u2026"


class Lines:
    """Cuts a byte stream into lines and hands them on; of an endless line only the beginning is kept."""

    LIMIT = 256 * 1024

    def __init__(self, take):
        self._take = take
        self._rest = b""
        self._skipping = False

    def feed(self, data):
        *whole, rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._line(line)
        self._rest = rest
        if len(rest) > self.LIMIT:
            self._line(rest)
            self._rest, self._skipping = b"", True

    def end(self):
        if self._rest:
            self._line(self._rest)
            self._rest = b""

    def _line(self, line):
        if not self._skipping:
            self._take(line.decode("utf-8", "replace"))
        self._skipping = False


# --------------------------------------------------------------------------------------------------------------------
# Programs: the builder and the server


class Program:
    """A program in a session of its own, whose output arrives as bytes on callbacks, and whose end is an event.

    `out` may be a socket, which then is its output.
    """

    def __init__(self, argv, env, cwd, *, out, err, prepare, given=b""):
        self._loop = asyncio.get_running_loop()
        self._process = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.PIPE if given else subprocess.DEVNULL,
            stdout=subprocess.PIPE if callable(out) else out,
            stderr=subprocess.PIPE if err else subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509 -- this process has no threads that hold locks
        )
        self.pid = self._process.pid
        if given:  # less than a pipe holds, so nobody waits for a reader
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(given)
                self._process.stdin.close()
        self.exited = asyncio.Event()
        self.drained = asyncio.Event()
        self._open = 0
        if callable(out):
            self._attach(self._process.stdout, out)
        if err:
            self._attach(self._process.stderr, err)

    @property
    def status(self):
        """How it ended, in words."""
        code = self._process.returncode
        return "exit status %s" % code if code is None or code >= 0 else "killed by signal %d" % -code

    @property
    def ended_well(self):
        return self._process.returncode == 0

    async def end(self):
        """Wait until it has ended and what it wrote has been read; a daemon that holds the pipe is not waited for."""
        await self.exited.wait()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.drained.wait(), 0.5)

    def poll(self):
        if not self.exited.is_set() and self._process.poll() is not None:
            self.exited.set()

    def tell_to_end(self):
        """SIGTERM to it and to what shares its process group."""
        if not self.exited.is_set():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGTERM)

    def kill(self):
        if not self.exited.is_set():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _attach(self, pipe, take):
        os.set_blocking(pipe.fileno(), False)
        self._open += 1
        self._loop.add_reader(pipe.fileno(), self._read, pipe, take)

    def _read(self, pipe, take):
        try:
            data = os.read(pipe.fileno(), 65536)
        except BlockingIOError:
            return
        if data:
            take(data)
            return
        self._loop.remove_reader(pipe.fileno())
        pipe.close()
        self._open -= 1
        if not self._open:
            self.drained.set()


PHASES = {word: word for word in ("waiting", "fetching", "building", "pushing", "built", "launching", "failed")}


class Builder:
    """Runs the builder, passes its lines on, and understands its last word."""

    def __init__(self, agent, root=False):
        self._agent = agent
        self._root = root
        self.brought = {}
        self.wants_containers = False
        self._phase = "fetching"
        self._last = collections.deque(maxlen=10)
        self._command = None
        self._image = None
        self._failure = None

    async def run(self, argv, seconds, given=b""):
        """The server's command; None, with the failure told, where there is none within `seconds`.

        Where all that was wanted is an image, an image without a command is no failure.
        """
        program = await self._run(argv, seconds, given)
        if program is None:
            return None
        image_wanted = self._agent.spec.get("build_only")
        if (self._image if image_wanted else self._command) and not self._failure:
            return self._command
        if self.wants_containers and self._agent.may_have_containers:
            return None
        if image_wanted and self._command:
            self._failure = "This backend has no containers, so it builds no images. Choose one with containers."
        self._agent.fail(self._failure or self._surprise(program))
        return None

    async def bring(self, argv, seconds):
        """Whether it ended well; what went wrong is told."""
        program = await self._run(argv, seconds)
        if program is None or (program.ended_well and not self._failure):
            return program is not None
        self._agent.fail(self._failure or self._surprise(program))
        return False

    async def _run(self, argv, seconds, given=b""):
        """The program, at its end; None, with the failure told, where it does not end within `seconds`."""
        lines, errors = Lines(self._event), Lines(self._error)
        try:
            where = self._agent.boot.home if self._root else self._agent.boot.work
            program = self._agent.start(argv, dict(os.environ), where, lines.feed, errors.feed, given, self._root)
        except OSError as fault:
            self._agent.fail("The builder cannot be started: %s." % fault.strerror)
            return None
        try:
            await asyncio.wait_for(program.end(), seconds)
        except asyncio.TimeoutError:
            program.kill()
            self._agent.fail("The build took longer than %s and was ended." % minutes(seconds))
            return None
        lines.end()
        errors.end()
        return program

    def _event(self, line):
        """One line of its standard output: an event, or else something to show as it is."""
        try:
            event = json.loads(line)
            self._phase, message = PHASES[event["phase"]], str(event["message"])
        except (ValueError, KeyError, TypeError):
            self._error(line)
            return
        if self._phase == "failed":
            self._failure = message
            self.wants_containers = event.get("needs") == "containers"
            return
        if self._root and isinstance(event.get("brought"), dict):
            self.brought = event["brought"]
        if self._phase == "built" and isinstance(event.get("server"), dict):
            self._command = event["server"]
        image = event.get("image")
        self._image = image if isinstance(image, str) and image else self._image
        self._agent.note(self._phase, message, image if image == self._image else None)

    def _error(self, line):
        if line.strip():
            self._last.append(line)
            self._agent.note(self._phase, line)

    def _surprise(self, program):
        return with_last_lines("The builder ended unexpectedly (%s)" % program.status, self._last)


NO_SERVER = {
    "server": "none",
    "kind": None,
    "last_activity": None,
    "kernels": 0,
    "busy": 0,
    "busy_since": None,
}


class Server:
    """The session's server: JupyterLab, or whatever the repository's `start` serves on our socket.

    A server that is not to be found there (a container's) has its addresses in the file `target` beside it:
    {"unix": path, "tcp": [address, port]}, one or both, written whole by what starts it and removed before the address
    can be another's. A socket that has come to be there goes before a port.
    """

    def __init__(self, agent, command):
        self._agent = agent
        self._command = command
        self._boot = agent.boot
        self._token = agent.session["server_token"]
        self.socket = os.path.join(agent.boot.runtime, "s.sock")
        self.port = free_port()
        self.target = self.socket
        self._targets = os.path.join(agent.boot.runtime, "target")
        self._told = False
        self.state = "starting"
        self.kind = None
        self._lines = Lines(self._line)
        self._tail = b""
        self._last = collections.deque(maxlen=10)
        self._activity = Activity(float(agent.spec.get("busy_hours", 24)))

    async def start(self):
        """Returns once it answers HTTP: None, or the sentence that says why it does not."""
        command = self._command
        try:
            self._program = self._agent.start(
                command["argv"], self._environment(), command.get("cwd") or self._boot.work, self._output, None
            )
        except OSError as fault:
            self.state = "down"
            return "The server cannot be started: %s: %s." % (command["argv"][0], fault.strerror)
        fault = await self._answers()
        self.state = "down" if fault else "up"
        self._activity.note(time.time())
        return fault

    def status(self):
        """For the report."""
        return dict(NO_SERVER, server=self.state, kind=self.kind, **self._activity.summary())

    async def connect(self, factory):
        """A connection to it: (transport, protocol). Raises OSError."""
        loop = asyncio.get_running_loop()
        if self._told and not os.path.exists(self._targets):  # noqa: ASYNC240 -- one look at a local folder
            raise ConnectionRefusedError("its address may be another's by now")
        if not isinstance(self.target, str):
            return await loop.create_connection(factory, *self.target)
        if not self._told and not self._agent.user:
            return await loop.create_unix_connection(factory, self.target)
        # A stranger's container, or another user, may write in that folder. A link there would lead us to any socket of
        # this computer, so what is opened is the very file, and only if it is a socket of theirs.
        file = os.open(self.target, os.O_PATH | os.O_NOFOLLOW)
        try:
            found, user = os.fstat(file), self._agent.user
            if not stat.S_ISSOCK(found.st_mode) or (user and found.st_uid != user["uid"]):
                raise ConnectionRefusedError("the server's socket is something else")
            return await loop.create_unix_connection(factory, "/proc/self/fd/%d" % file)
        finally:
            os.close(file)

    async def watch(self):
        """Ask about activity once per heartbeat until it ends, then say so."""
        ended = asyncio.ensure_future(self._program.end())
        while not ended.done():
            await self._look()
            await asyncio.wait([ended], timeout=self._agent.heartbeat_seconds)
        self.state = "down"
        last = self._tail.decode("utf-8", "replace").splitlines()[-10:]
        self._agent.note("launching", with_last_lines("The server has ended (%s)" % self._program.status, last))

    def _environment(self):
        env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        env.setdefault("PATH", os.defpath)
        env.setdefault("LANG", "C.UTF-8")
        env["HOME"] = os.path.join(self._boot.work, "home")
        env.update(self._agent.spec.get("env") or {})
        env.update(self._command.get("env") or {})
        env[MARK] = self._boot.order
        env["ANYBINDER_SOCKET"] = self.socket
        env["PORT"] = str(self.port)
        env["JUPYTER_TOKEN"] = self._token
        return env

    def _output(self, data):
        if self.state == "starting":
            self._lines.feed(data)
        else:  # nobody reads a running server's log line by line: keep its end, for when it dies
            self._tail = (self._tail + data)[-8192:]

    def _line(self, line):
        if line.strip():
            self._last.append(line)
            self._agent.note("launching", line)

    async def _answers(self):
        """Poll until it answers on the socket, or on its port where that is allowed."""
        began = time.monotonic()
        on_port_since = None
        while time.monotonic() - began < START_SECONDS:
            if await self._probe():
                return None
            if self._program.exited.is_set():
                await self._program.end()
                self._lines.end()
                return with_last_lines("The server ended before it answered (%s)" % self._program.status, self._last)
            if await self._port_open():
                on_port_since = on_port_since or time.monotonic()
                if self._boot.tcp_servers and await self._probe_port():
                    return None
                if not self._boot.tcp_servers and time.monotonic() - on_port_since > PORT_GRACE_SECONDS:
                    return PORT_REFUSED
            await asyncio.sleep(0.02)
        return with_last_lines("The server did not answer within %d seconds" % START_SECONDS, self._last)

    async def _probe(self):
        """True when it answers HTTP; says of which kind it is."""
        if not self._is_there():
            return False
        answer = await self._ask("/api/status")
        if answer is None:
            return False
        status, body = answer
        self.kind = "jupyter" if status == 200 and isinstance(body, dict) and "started" in body else "app"
        return True

    def _is_there(self):
        """Look where it is to be found. An address may come at any time, so it is looked for each time."""
        if self._agent.user:  # whose word on addresses would lead us, as root, to what is closed to them
            return isinstance(self.target, tuple) or os.path.lexists(self.target)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with open(self._targets, encoding="utf-8") as file:
                told = json.load(file)
            by_path = "unix" in told and ("tcp" not in told or os.path.lexists(told["unix"]))
            self.target = str(told["unix"]) if by_path else tuple(told["tcp"])
            self._told = True
        return isinstance(self.target, tuple) or os.path.lexists(self.target)

    async def _port_open(self):
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", self.port)
        except OSError:
            return False
        transport.abort()
        return True

    async def _probe_port(self):
        self.target = ("127.0.0.1", self.port)
        answer = await self._ask("/api/status")
        if answer is None:
            self.target = self.socket
            return False
        self.kind = "app"
        return True

    async def _look(self):
        """Learn of activity: a Jupyter server is asked, of any other the tunnel's own bytes are taken."""
        if self.kind != "jupyter":
            self._activity.note(self._agent.tunnel.last_byte)
            return
        kernels = await self._ask("/api/kernels")
        terminals = await self._ask("/api/terminals")
        before = self._activity.summary()
        if kernels and isinstance(kernels[1], list):
            self._activity.see(kernels[1], (terminals and terminals[1]) or [])
        if self._activity.summary() != before:
            self._agent.wake.set()

    async def _ask(self, path):
        """(status, JSON or None) of a GET with the server's token; None where nothing answers HTTP."""
        headers = {"Host": "localhost", "Authorization": "token " + self._token, "Connection": "close"}
        try:
            return await asyncio.wait_for(ask(self.connect, http_head("GET", path, headers)), 10)
        except (OSError, ValueError, EOFError, asyncio.TimeoutError):
            return None


PORT_REFUSED = (
    "The server answers on a TCP port, which every user of this computer could open. Let it serve on the unix socket "
    'named in $ANYBINDER_SOCKET (for example: uvicorn app:app --uds "$ANYBINDER_SOCKET"), or, if you are the only user '
    "of this computer, set ANYBINDER_LOCAL_TCP_SERVERS=true."
)


class Activity:
    """When the session was last used, and how many kernels work."""

    def __init__(self, busy_hours):
        self._busy_seconds = busy_hours * 3600
        self._last = 0.0
        self._busy_since = {}
        self._kernels = 0

    def note(self, instant):
        self._last = max(self._last, instant)

    def see(self, kernels, terminals):
        """Take what Jupyter says of its kernels and terminals. A busy kernel is activity, unless busy for too long."""
        now = time.time()
        for thing in kernels + (terminals if isinstance(terminals, list) else []):
            self.note(min(now, instant_of(thing.get("last_activity"))))
        busy = {kernel["id"] for kernel in kernels if kernel.get("execution_state") == "busy"}
        self._busy_since = {name: self._busy_since.get(name, now) for name in busy}
        self._kernels = len(kernels)
        if any(now - since < self._busy_seconds for since in self._busy_since.values()):
            self.note(now)

    def summary(self):
        since = min(self._busy_since.values(), default=None)
        return {
            "last_activity": iso(self._last) if self._last else None,
            "kernels": self._kernels,
            "busy": len(self._busy_since),
            "busy_since": iso(since) if since else None,
        }


def with_last_lines(sentence, lines):
    """The sentence, and what was said last, on one line."""
    text = " / ".join(neutral(line).strip() for line in lines if line.strip())
    return "%s. Its last lines: %s" % (sentence, text[-1500:]) if text else sentence + "."


def minutes(seconds):
    return "%d seconds" % seconds if seconds < 120 else "%d minutes" % (seconds / 60)


def iso(instant):
    return datetime.datetime.fromtimestamp(instant, datetime.timezone.utc).isoformat()


def instant_of(text):
    """Seconds since the epoch of an ISO time; 0 where it is none."""
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except (AttributeError, ValueError):
        return 0.0


# --------------------------------------------------------------------------------------------------------------------
# HTTP, as little as is needed


class Broker:
    """The broker's two doors for agents. Keeps its connection; an answer of status 0 means that nothing answered."""

    def __init__(self, url):
        self._url = Url(url)
        self._kept = None

    async def post(self, path, token, body):
        """(status, JSON object). Safe to repeat: both doors take the same thing twice."""
        content = json.dumps(body).encode()
        headers = {
            "Host": self._url.netloc,
            "Authorization": "Bearer " + token,
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
        }
        request = http_head("POST", self._url.path + path, headers) + content
        try:
            status, answer = await asyncio.wait_for(self._exchange(request), 30)
        except (OSError, ValueError, EOFError, asyncio.TimeoutError) as fault:
            self._drop()
            say("the broker does not answer: %s" % (fault or type(fault).__name__))
            return 0, {}
        return status, answer if isinstance(answer, dict) else {}

    async def _exchange(self, request):
        if self._kept:
            with contextlib.suppress(OSError, EOFError):
                return await self._on_kept(request)
            self._drop()
        self._kept = await open_stream(lambda factory: dial(self._url, factory))
        return await self._on_kept(request)

    async def _on_kept(self, request):
        reader, writer = self._kept
        writer.write(request)
        status, body, keep = await read_answer(reader)
        if not keep:
            self._drop()
        return status, body

    def _drop(self):
        if self._kept:
            self._kept[1].close()
            self._kept = None


class Url:
    """The parts of the broker's URL that dialling needs."""

    def __init__(self, text):
        parts = urllib.parse.urlsplit(text)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not an http(s) URL: %r" % text)
        self.tls = parts.scheme == "https"
        self.host = parts.hostname
        self.port = parts.port or (443 if self.tls else 80)
        self.netloc = parts.netloc.rpartition("@")[2]
        self.path = parts.path.rstrip("/")


async def dial(url, factory):
    """Connect to the broker: (transport, protocol). TLS by the usual authorities, through `https_proxy` where set."""
    loop = asyncio.get_running_loop()
    if not url.tls:
        return await loop.create_connection(factory, url.host, url.port)
    context = ssl.create_default_context()
    proxy = proxy_for(url.host)
    if proxy is None:
        return await loop.create_connection(factory, url.host, url.port, ssl=context, server_hostname=url.host)
    tunnelled = await connect_through(proxy, url)
    try:
        return await loop.create_connection(factory, sock=tunnelled, ssl=context, server_hostname=url.host)
    except BaseException:
        tunnelled.close()
        raise


def proxy_for(host):
    """The proxy that the environment names for https to this host; None where it names none."""
    if not (os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY")):
        return None
    import urllib.request  # costs 20 ms, needed only behind a proxy

    proxies = urllib.request.getproxies_environment()
    if urllib.request.proxy_bypass_environment(host, proxies):
        return None
    text = proxies["https"]
    return urllib.parse.urlsplit(text if "://" in text else "http://" + text)


async def connect_through(proxy, url):
    """A socket to the broker's TLS port, by the proxy's CONNECT. Raises OSError where the proxy refuses."""
    loop = asyncio.get_running_loop()
    host = "[%s]" % url.host if ":" in url.host else url.host
    headers = {"Host": "%s:%d" % (host, url.port)}
    if proxy.username:
        login = urllib.parse.unquote(proxy.username) + ":" + urllib.parse.unquote(proxy.password or "")
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    found = await loop.getaddrinfo(proxy.hostname, proxy.port or 80, type=socket.SOCK_STREAM)
    sock = socket.socket(*found[0][:3])
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(sock, found[0][4])
        await loop.sock_sendall(sock, http_head("CONNECT", headers["Host"], headers))
        head = b""
        while not head.endswith(b"\r\n\r\n"):  # one byte at a time: what follows belongs to TLS
            byte = await loop.sock_recv(sock, 1)
            if not byte or len(head) > 16384:
                raise ConnectionError("the proxy closed the connection")
            head += byte
        if status_of(head) != 200:
            raise ConnectionError("the proxy answers %d to CONNECT" % status_of(head))
    except BaseException:
        sock.close()
        raise
    return sock


def http_head(method, target, headers):
    lines = ["%s %s HTTP/1.1" % (method, target)] + ["%s: %s" % item for item in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def status_of(head):
    """The status in an answer's first line. Raises ValueError where it is no HTTP."""
    version, _, rest = head.partition(b"\r\n")[0].partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ValueError("not HTTP")
    return int(rest[:3])


def headers_of(head):
    """The header fields, by lower-case name."""
    pairs = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs if name}


async def open_stream(connect):
    """A (reader, writer) over whatever `connect(factory)` connects to."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await connect(lambda: protocol)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def ask(connect, request):
    """One request on a connection of its own: (status, JSON or None)."""
    reader, writer = await open_stream(connect)
    try:
        writer.write(request)
        status, body, _ = await read_answer(reader)
        return status, body
    finally:
        writer.close()


async def read_answer(reader):
    """(status, JSON or None, whether the connection can be used again)."""
    head = b"HTTP/1.1 100"
    while 100 <= status_of(head) < 200:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise ValueError("a head too long") from None
    headers = headers_of(head)
    body, framed = await read_body(reader, status_of(head), headers)
    keep = framed and head.startswith(b"HTTP/1.1") and headers.get(b"connection", b"").lower() != b"close"
    try:
        return status_of(head), json.loads(body.decode()) if body else None, keep
    except ValueError:
        return status_of(head), None, keep


async def read_body(reader, status, headers):
    """(body, whether its end is known without closing). At most 4 MiB."""
    limit = 4 * 1024 * 1024
    if status in (204, 304):
        return b"", True
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = b""
        while True:
            size = int((await reader.readline()).partition(b";")[0], 16)
            chunk = await reader.readexactly(min(size, limit) + 2)
            if not size:
                return body, True
            body += chunk[:-2]
            if len(body) > limit:
                raise ValueError("a body too long")
    if b"content-length" in headers:
        return await reader.readexactly(min(limit, int(headers[b"content-length"]))), True
    return await reader.read(limit), False


# --------------------------------------------------------------------------------------------------------------------
# The tunnel


PING, TAKEN, REFUSED = b"\x00", b"\x01", b"\x02"
PACKED = b"\x03"  # taken, for the session's files


class Tunnel:
    """The agent's end of the tunnel: a few parked streams to the broker, each joined to the server when taken.

    Can be used alone (a benchmark, a forwarder):

        await Tunnel("http://127.0.0.1:8000", session_id, secret, "/run/x/s.sock").run()

    `connect` is the path of a unix socket, a (host, port), or a coroutine function that is given a protocol factory
    and returns (transport, protocol) or raises OSError. `run` redials for ever, also while the broker restarts; it
    returns only when the broker answers 403: the session is revoked, and streams that were taken are cut as well.
    `pack` may be set to a coroutine function like `connect`, for streams that are taken for the session's files.
    `parked` streams are kept ready; while many are being taken it parks more, up to 64. `last_byte` is the wall-clock
    time of the last byte from the broker's side.
    """

    def __init__(self, broker, session, secret, connect, parked=4):
        self.url = Url(broker)
        self.session = session
        self.secret = secret
        self.connect = connector(connect)
        self.pack = None
        self.last_byte = 0.0
        self.framed = False  # whether the streams are in WebSocket frames; flips where the other way does not work
        self._least = parked
        self._works = False
        self._splicer = Splicer() if hasattr(select, "epoll") else None
        self._streams = set()  # being dialled or parked
        self._joined = set()  # taken
        self._taken = collections.deque(maxlen=AHEAD_STREAMS)  # instants of the last takes
        self._wake = self._hurry = None  # made in `run`: before Python 3.10 an event belongs to the loop it is made in
        self._failures = 0

    async def run(self):
        """Keep streams parked until the broker revokes the session."""
        loop = asyncio.get_running_loop()
        self._wake, self._hurry, self._revoked = asyncio.Event(), asyncio.Event(), loop.create_future()
        tasks = [loop.create_task(self._keep()), loop.create_task(self._sweep())]
        try:
            await asyncio.wait([self._revoked] + tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()  # raises what broke it
        finally:
            for task in tasks:
                task.cancel()
            for stream in list(self._streams | self._joined):
                stream.close()
            if self._splicer:
                self._splicer.stop()

    def splicer(self, *transports):
        """What joins these two outside of asyncio, where that can be done: on Linux, and not through TLS."""
        plain = not any(transport.get_extra_info("sslcontext") for transport in transports)
        return self._splicer if plain else None

    def nudge(self):
        """Dial now rather than after the current pause."""
        self._failures = 0
        if self._wake:
            self._hurry.set()
            self._wake.set()

    def wanted(self):
        """How many streams to have ready: more while many are being taken."""
        recently = time.monotonic() - 2
        return min(AHEAD_STREAMS, max(self._least, sum(1 for instant in self._taken if instant > recently)))

    async def _keep(self):
        while True:
            self._wake.clear()
            while len(self._streams) < self.wanted():
                stream = Stream(self)
                self._streams.add(stream)
                stream.begin()
            if self._failures:
                await self._pause()
            await self._wake.wait()

    async def _pause(self):
        """After a failure, wait before dialling again; a nudge cuts it short."""
        self._hurry.clear()
        pause = min(5.0, 0.1 * 2 ** min(self._failures - 1, 10)) * (0.75 + secrets.randbelow(500) / 1000)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), pause)
        if len(self._streams) < self.wanted():
            self._wake.set()

    async def _sweep(self):
        """Close streams that have heard no ping for too long: a middlebox has forgotten them."""
        while True:
            await asyncio.sleep(STALE_SECONDS / 8)
            stale = time.monotonic() - STALE_SECONDS
            for stream in [stream for stream in self._streams if stream.parked and stream.heard < stale]:
                stream.close()

    # What a stream tells

    def stream_parked(self):
        self._works, self._failures = True, 0

    def stream_taken(self, stream):
        self._taken.append(time.monotonic())
        self._streams.discard(stream)
        self._joined.add(stream)
        self._wake.set()

    def stream_lost(self, stream, failed):
        """It has ended. `failed` counts towards the pause before the next is dialled, unless it had been taken."""
        self._joined.discard(stream)
        if stream in self._streams:
            self._streams.discard(stream)
            self._failures += 1 if failed else 0
            self._wake.set()

    def stream_answered(self, status, framed):
        """The broker, or something before it, answered other than 101."""
        if status == 403 and not self._revoked.done():
            self._revoked.set_result(None)
        elif status != 503 and not self._works:  # a middlebox may have eaten the upgrade: try the other way
            self.framed = not framed


def connector(connect):
    """A coroutine function that connects, from whatever a `Tunnel` may be given."""
    if callable(connect):
        return connect

    async def to_path(factory):
        return await asyncio.get_running_loop().create_unix_connection(factory, connect)

    async def to_port(factory):
        return await asyncio.get_running_loop().create_connection(factory, *connect)

    return to_path if isinstance(connect, str) else to_port


class Stream(asyncio.Protocol):
    """One connection to the broker: dialled, parked, taken, then joined to one connection to the server."""

    def __init__(self, tunnel):
        self.tunnel = tunnel
        self.transport = None
        self.other = None
        self.parked = False
        self.ended = False
        self.heard = time.monotonic()
        self._since = self.heard
        self._frames = Frames() if tunnel.framed else None
        self._head = b""
        self._early = b""
        self._take = self._answer
        self._task = None
        self._pair = None
        self._connect = None

    def begin(self):
        """Dial; whatever comes of it is told to the tunnel."""
        self._task = asyncio.get_running_loop().create_task(self._dial())

    def close(self):
        self._task.cancel()
        if self.transport:
            self.transport.abort()
        if self.other:
            self.other.close()
        if self._pair:
            self._pair.cut()
        self.tunnel.stream_lost(self, failed=False)

    async def _dial(self):
        try:
            await asyncio.wait_for(dial(self.tunnel.url, lambda: self), DIAL_SECONDS)
        except (OSError, asyncio.TimeoutError):
            self.tunnel.stream_lost(self, failed=True)
            return
        await asyncio.sleep(DIAL_SECONDS)
        if not self.parked and not self.other:  # connected, but never answered
            self.transport.abort()

    # What the transport tells

    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        headers = {
            "Host": self.tunnel.url.netloc,
            "Connection": "Upgrade",
            "Upgrade": "websocket" if self._frames else "anybinder-tunnel",
            "Authorization": "Bearer " + self.tunnel.secret,
            "X-Anybinder-Session": self.tunnel.session,
        }
        if self._frames:
            headers.update(self._frames.headers())
        transport.write(http_head("GET", self.tunnel.url.path + "/agent/tunnel", headers))

    def data_received(self, data):
        self._take(data)

    def eof_received(self):
        return self._end_of_input()

    def connection_lost(self, _fault):
        self._task.cancel()
        self.ended = True
        if self._pair:
            return  # it goes on outside of asyncio
        if self.other:
            self.other.close()
        self.tunnel.stream_lost(self, failed=time.monotonic() - self._since < 1)

    def pause_writing(self):
        if self.other:
            self.other.pause_reading()

    def resume_writing(self):
        if self.other:
            self.other.resume_reading()

    # Its states, each a way to take bytes

    def _answer(self, data):
        """The answer to the handshake."""
        self._head += data
        head, found, rest = self._head.partition(b"\r\n\r\n")
        if not found and len(self._head) < 16384:
            return
        try:
            status = status_of(head)
        except ValueError:
            status = 0
        if status != 101 or (self._frames and not self._frames.accepted(headers_of(head))):
            self.tunnel.stream_answered(status, framed=self._frames is not None)
            self.transport.abort()
            return
        self.parked, self.heard = True, time.monotonic()
        self.tunnel.stream_parked()
        self._take = self._unframe if self._frames else self._wait
        self._payload = self._wait
        if rest:
            self._take(rest)

    def _wait(self, data):
        """Parked: pings, then perhaps the one byte that takes it."""
        self.heard = time.monotonic()
        rest = data.lstrip(PING)
        if len(rest) < len(data):
            self._send(PING * (len(data) - len(rest)))
        if not rest:
            return
        self._connect = {TAKEN: self.tunnel.connect, PACKED: self.tunnel.pack}.get(rest[:1])
        if self._connect is None:
            self.transport.abort()
            return
        self.parked = False
        self.tunnel.stream_taken(self)
        self._become(self._keep_early)
        self._early = rest[1:]
        self.transport.pause_reading()
        self._task.cancel()
        self._task = asyncio.get_running_loop().create_task(self._join())

    def _keep_early(self, data):
        self._early += data

    def _forward(self, data):
        self.tunnel.last_byte = time.time()
        self.other.write(data)

    def _unframe(self, data):
        """In WebSocket frames: hand on what they carry, answer pings, end at a close."""
        try:
            payload, reply, closed = self._frames.feed(data)
        except ValueError:
            self.transport.abort()
            return
        if reply:
            self.transport.write(reply)
        if payload:
            self._payload(payload)
        if closed and not self._end_of_input():
            self.transport.close()

    def _become(self, take):
        if self._frames:
            self._payload = take
        else:
            self._take = take

    async def _join(self):
        """Connect to what it was taken for, say so, and splice."""
        side = ServerSide(self)
        try:
            await self._connect(lambda: side)
        except OSError:
            self._send(REFUSED)
            self.transport.close()
            return
        if self.transport.is_closing():
            side.close()
            return
        self.tunnel.last_byte = time.time()
        splicer = None if self._frames else self.tunnel.splicer(self.transport, side.transport)
        if splicer:
            self._hand_over(splicer, side)
            return
        self.other = side
        self._become(self._forward)
        self._send(TAKEN)
        if self._early:
            side.write(self._early)
        self._early = b""
        side.splice(self._send)
        self.transport.resume_reading()

    def _hand_over(self, splicer, side):
        """The rest needs nothing of asyncio, and without it a message is twice as fast: give both sockets away."""
        loop = asyncio.get_running_loop()

        def ended():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                loop.call_soon_threadsafe(self.tunnel.stream_lost, self, False)

        self._pair = Pair(splicer, taken_from(self.transport), taken_from(side.transport), self._heard, ended)
        self._pair.begin(to_near=TAKEN, to_far=self._early)
        self._early = b""
        self.transport.abort()
        side.transport.abort()

    def _heard(self):
        self.tunnel.last_byte = time.time()

    # What the server's side uses

    def _send(self, data):
        self.transport.write(self._frames.wrap(data) if self._frames else data)

    def write_eof(self):
        """The server's side has ended its output: pass that on where the stream can say it. False: close instead."""
        if self._frames or not self.transport.can_write_eof():
            return False
        if not self.transport.is_closing():
            self.transport.write_eof()
        return True

    def shut(self, whole):
        """The server's side has closed. In frames only a close says that what it sent is `whole`."""
        if self.transport:
            if self._frames and whole and not self.transport.is_closing():
                self.transport.write(self._frames.wrap(b"\x03\xe8", 8))
            self.transport.close()

    def _end_of_input(self):
        """The broker's side has ended its output. True keeps the connection open for what is still to be sent."""
        self.ended = True
        if not self.other or self.other.ended:
            return False
        self.other.write_eof()
        return not self._frames


class ServerSide(asyncio.Protocol):
    """The other half of a taken stream: a connection to the server."""

    def __init__(self, stream):
        self.stream = stream
        self.transport = None
        self.ended = False

    def splice(self, send):
        """From now on hand bytes on; until now it was not read."""
        broker = self.stream.transport
        # The transport calls this for each read. Without frames that is the other transport's own `write`: no step
        # of ours is in between.
        self.data_received = send if self.stream._frames else broker.write
        self.transport.resume_reading()

    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        transport.pause_reading()

    def data_received(self, _data):
        raise AssertionError("read before it was spliced")

    def eof_received(self):
        self.ended = True
        return not self.stream.ended and self.stream.write_eof()

    def connection_lost(self, fault):
        self.ended = True
        self.stream.shut(whole=fault is None)

    def pause_writing(self):
        self.stream.transport.pause_reading()

    def resume_writing(self):
        self.stream.transport.resume_reading()

    def write(self, data):
        self.transport.write(data)

    def pause_reading(self):
        self.transport.pause_reading()

    def resume_reading(self):
        self.transport.resume_reading()

    def write_eof(self):
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()

    def close(self):
        if self.transport:
            self.transport.close()


def taken_from(transport):
    """A socket of our own for this connection: closing the transport does not close it."""
    return socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))


class Splicer:
    """One thread that joins sockets two by two, with epoll alone. It starts with the first pair."""

    def __init__(self):
        self._epoll = select.epoll()
        self._inbox = collections.deque()
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._halves = {}
        self._thread = None

    def do(self, call):
        """Have this called on the thread, soon."""
        self._inbox.append(call)
        if self._thread is None:
            self._epoll.register(self._near.fileno(), select.EPOLLIN)
            self._thread = threading.Thread(target=self._run, name="splicer", daemon=True)
            self._thread.start()
        self._far.send(b"!")

    def stop(self):
        """Cut what is still joined, and end the thread."""
        if self._thread is not None:
            self.do(None)
            self._thread.join()
        self._epoll.close()
        self._near.close()
        self._far.close()

    def watch(self, half):
        """From now on tell this half what becomes of its socket. Only on the thread."""
        self._halves[half.socket.fileno()] = half
        self._epoll.register(half.socket.fileno(), half.events())

    def change(self, half):
        """It waits for something else than before. Only on the thread."""
        self._epoll.modify(half.socket.fileno(), half.events())

    def forget(self, half):
        """Its socket is about to be closed. Only on the thread."""
        del self._halves[half.socket.fileno()]
        self._epoll.unregister(half.socket.fileno())

    def _run(self):
        poll, halves, wake = self._epoll.poll, self._halves, self._near.fileno()
        while True:
            called = False
            for number, event in poll():
                half = halves.get(number)
                if half is not None:
                    half.happened(event)
                called = called or number == wake
            if called and not self._called():  # after the others: a new socket may have the number of one just closed
                return

    def _called(self):
        """Whether to go on."""
        with contextlib.suppress(BlockingIOError):
            self._near.recv(4096)
        while self._inbox:
            call = self._inbox.popleft()
            if call is None:
                for half in list(self._halves.values()):
                    half.pair.end()
                return False
            call()
        return True


class Pair:
    """Two sockets joined. `heard` is called for bytes that come from the near one, `ended` once both are closed."""

    def __init__(self, splicer, near, far, heard, ended):
        self.splicer = splicer
        self.heard = heard
        self._ended = ended
        self.over = False
        self.near, self.far = Half(self, near), Half(self, far)
        self.near.other, self.far.other = self.far, self.near

    def begin(self, to_near, to_far):
        """Send these first, then whatever comes."""

        def join():
            self.near.out, self.far.out = to_near, to_far
            self.splicer.watch(self.near)
            self.splicer.watch(self.far)
            self.near.flush()
            self.far.flush()

        self.splicer.do(join)

    def cut(self):
        """End it from any thread."""
        self.splicer.do(self.end)

    def end(self):
        """Close both. Only on the splicer's thread."""
        if not self.over:
            self.over = True
            for half in (self.near, self.far):
                self.splicer.forget(half)
                half.socket.close()
            self._ended()


class Half:
    """One socket of a pair: what it sends is read here and written to the other, as fast as the other takes it."""

    def __init__(self, pair, taken):
        self.pair = pair
        self.socket = taken
        self.socket.setblocking(False)
        self.other = None
        self.out = b""  # still to be written here; while there is some, the other is not read
        self._eof = False  # it has ended its output
        self._shut = False  # and so have we, to it
        self._waiting_for = 0

    def events(self):
        """What to wait for. A hang-up is always told: by an edge alone, it is not told again and again."""
        reading = 0 if self._eof or self.other.out else select.EPOLLIN
        self._waiting_for = (reading | (select.EPOLLOUT if self.out else 0)) or select.EPOLLET
        return self._waiting_for

    def happened(self, event):
        """What epoll saw. Who has hung up may have said much before: that is read as the other takes it."""
        if event & select.EPOLLOUT:
            self.flush()
        if event & select.EPOLLIN:
            self._read()
        elif event & (select.EPOLLHUP | select.EPOLLERR) and not event & select.EPOLLOUT:
            if self is self.pair.near:
                self.pair.end()
            elif self.out:
                self.flush()

    def _read(self):
        try:
            data = self.socket.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            self._broke()
            data = b""
        if self is self.pair.near:
            self.pair.heard()
        if not data:
            self._eof = True
            self.other.flush()
            self._wait()
            return
        sent = self.other._send(data)
        if sent < len(data):
            self.other.out = data[sent:]
            self._wait()
            self.other._wait()

    def _send(self, data):
        """How much of it is done with: all of it where nobody hears any more."""
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self._broke()
            return len(data)

    def _broke(self):
        """Without the broker nobody wants the rest; what a server said before it left is still wanted."""
        self._shut = True
        if self is self.pair.near:
            self.pair.end()

    def flush(self):
        """Write what is left; once there is none, let the other be read again, or say that no more will come."""
        if self.pair.over:
            return
        if self.out:
            self.out = self.out[self._send(self.out) :]
        if not self.out and self.other._eof and not self._shut:
            self._shut = True
            with contextlib.suppress(OSError):  # it has hung up
                self.socket.shutdown(socket.SHUT_WR)
        if self._shut and self.other._shut and self.pair.near._eof and not self.out and not self.other.out:
            self.pair.end()  # not before the broker has ended too: closed on what it still sends, it might lose the rest
            return
        self._wait()
        self.other._wait()

    def _wait(self):
        if self.pair.over:
            return
        before = self._waiting_for
        if self.events() != before:
            self.pair.splicer.change(self)


class Frames:
    """WebSocket framing of one stream, the client's end: binary messages whose boundaries mean nothing."""

    LIMIT = 16 * 1024 * 1024

    def __init__(self):
        self._key = base64.b64encode(secrets.token_bytes(16))
        self._rest = bytearray()

    def headers(self):
        return {
            "Sec-WebSocket-Key": self._key.decode(),
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Protocol": "anybinder-tunnel",
        }

    def accepted(self, headers):
        digest = hashlib.sha1(self._key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()  # noqa: S324 -- RFC 6455
        return headers.get(b"sec-websocket-accept") == base64.b64encode(digest)

    def wrap(self, data, code=2):
        """One masked frame."""
        size, mask = len(data), secrets.token_bytes(4)
        if size < 126:
            head = bytes((0x80 | code, 0x80 | size))
        elif size < 65536:
            head = bytes((0x80 | code, 0xFE)) + size.to_bytes(2, "big")
        else:
            head = bytes((0x80 | code, 0xFF)) + size.to_bytes(8, "big")
        return head + mask + masked(data, mask)

    def feed(self, data):
        """(payload, frames to answer with, whether the other end has closed). Raises ValueError on a wrong frame."""
        self._rest += data
        payload, replies, closed = [], [], False
        while not closed:
            frame = self._next()
            if frame is None:
                break
            code, content = frame
            if code in (0, 2):
                payload.append(content)
            elif code == 9:
                replies.append(self.wrap(content, 10))
            elif code == 8:
                replies.append(self.wrap(content[:2], 8))
                closed = True
        return b"".join(payload), b"".join(replies), closed

    def _next(self):
        rest = self._rest
        if len(rest) < 2:
            return None
        short = rest[1] & 0x7F
        start = 2 + {126: 2, 127: 8}.get(short, 0)
        if len(rest) < start:
            return None
        size = short if short < 126 else int.from_bytes(rest[2:start], "big")
        if rest[1] & 0x80 or size > self.LIMIT:  # a server's frames are not masked
            raise ValueError("a wrong frame")
        if len(rest) < start + size:
            return None
        frame = rest[0] & 0x0F, bytes(rest[start : start + size])
        del rest[: start + size]
        return frame


def masked(data, mask):
    """The bytes, each combined with the mask; as one long number, which is fast."""
    size = len(data)
    pattern = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pattern, "little")).to_bytes(size, "little")


# --------------------------------------------------------------------------------------------------------------------
# Processes


def become_subreaper():
    """Orphans among our descendants become our children, where the system can do that (Linux)."""
    control_process(36, 1)  # PR_SET_CHILD_SUBREAPER


def die_with_parent(number):
    """Have this signal sent to us when our parent dies, where the system can do that (Linux)."""
    control_process(1, int(number))  # PR_SET_PDEATHSIG


def become(user):
    """Another user for good, whom no program makes anybody else again; the first to go where memory is short."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("300")
    os.setgroups([])
    os.setgid(user["gid"])
    os.setuid(user["uid"])
    control_process(38, 1)  # PR_SET_NO_NEW_PRIVS


def control_process(option, value):
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def raise_limits():
    """No core files, as many open files as permitted."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def end_all(boot, spare, seconds=30):
    """Kill all that descends from us, carries the order's mark or sits in its cgroups, until none is left.

    Returns whether none is. `spare` are the agent's own processes.
    """
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        reap(known=spare)
        found = kin(boot, spare)
        if not found:
            return True
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    say("could not end everything")
    return False


def kin(boot, spare):
    """The living processes of this order, but for the agent's own."""
    parents = process_table()
    found = {pid for path in boot.cgroups for pid in members(path)}
    mark = ("%s=%s" % (MARK, boot.order)).encode()
    for pid in parents:
        if pid not in spare and (descends(pid, parents, spare) or carries(pid, mark)):
            found.add(pid)
    return found - spare


def process_table():
    """Parent of each living process. Zombies are left out: they have ended."""
    if not os.path.isdir("/proc/self"):
        listed = subprocess.run(["ps", "-axo", "pid=,ppid=,stat="], stdout=subprocess.PIPE, check=False).stdout
        rows = [line.split() for line in listed.decode().splitlines()]
        return {int(row[0]): int(row[1]) for row in rows if len(row) > 2 and not row[2].startswith("Z")}
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open("/proc/%s/stat" % name, "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state not in (b"Z", b"X"):
                    parents[int(name)] = int(parent)
    return parents


def descends(pid, parents, ancestors):
    """Whether one of the ancestors is above this process."""
    seen = set()
    while pid in parents and pid not in seen:
        seen.add(pid)
        pid = parents[pid]
        if pid in ancestors:
            return True
    return False


def carries(pid, mark):
    """Whether the process was born with this entry in its environment."""
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:
        return False


def members(cgroup):
    try:
        with open(os.path.join(cgroup, "cgroup.procs"), encoding="ascii") as file:
            return [int(line) for line in file if line.strip() != "0"]
    except OSError:
        return []


def reap(known):
    """Bury dead children that are not in `known`: orphans that came to us."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except (ChildProcessError, AttributeError):
            return
        if found is None or found.si_pid in known:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(found.si_pid, os.WNOHANG)


# --------------------------------------------------------------------------------------------------------------------
# Small things


def free_port():
    """A TCP port that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def spellings(key):
    """What opens the repository, in the ways in which a program could say it."""
    if not key:
        return []
    pair = ("%s:%s" % (key["user"], key["secret"])).encode()
    return [key["secret"], urllib.parse.quote(key["secret"], safe=""), base64.b64encode(pair).decode("ascii")]


def write_private(path, text, user=None):
    """Write a file that only we, or else only this user, can read."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        if user:
            os.fchown(file.fileno(), user["uid"], user["gid"])
        file.write(text)


def say(message):
    """A line for the agent's own log."""
    print("%s anybinder agent: %s" % (iso(time.time()), neutral(message)), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
