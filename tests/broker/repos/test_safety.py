"""Where a served broker may not go, however it is asked to."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker import repos, settings
from broker.repos import connecting, errors, running, safety
from tests.doubles.git_server import GitServer
from tests.waiting import until

HERE = (ipaddress.ip_network("127.0.0.1/32"),)
SERVED = {"public_url": "https://hub.example", "session_domain": "s.example"}


class Names:
    """A resolver of names whose answers change: the n-th question gets the n-th answer, the last one stays."""

    def __init__(self, **answers: list[str]) -> None:
        self.answers = {name.replace("_", "."): given for name, given in answers.items()}
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        given = self.answers.get(host, [host])
        answer = given[min(self.asked.count(host), len(given)) - 1]
        try:
            ipaddress.ip_address(answer)
        except ValueError:
            raise socket.gaierror(f"no {host}") from None
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answer, port))]


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("100.100.100.200", "168.63.129.16", "192.0.0.192", "224.0.0.1", "239.1.1.1", "0.0.0.0", "255.255.255.255"),
        *("240.0.0.1", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
        *("2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::", "2001:db8::1"),
    ],
)
def test_no_address_of_an_inner_network_is_public(address):
    assert not safety.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["140.82.121.3", "2606:50c0:8000::153", "::ffff:140.82.121.3", "64:ff9b::8c52:7903"]
)
def test_the_public_internet_is_public(address):
    assert safety.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "127.0.1", "0x7f.0.0.1", "0", "127.0.0.1.", "1.2.3.0x4"]
)
def test_a_host_that_programs_read_differently_is_refused(host):
    with pytest.raises(errors.NotAllowed):
        safety.Safety(served=True, lookup=Names()).address(host, 80)


def test_a_name_is_refused_if_any_of_its_addresses_is_inside():
    def lookup(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        return [(0, 0, 0, "", (address, port)) for address in ("140.82.121.3", "10.0.0.8")]

    with pytest.raises(errors.NotAllowed, match=r"inside\.example"):
        safety.Safety(served=True, lookup=lookup).address("inside.example", 443)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "2130706433", "[::ffff:127.0.0.1]", "rebind.test"]
)
@pytest.mark.parametrize("scheme", ["http", "https", "git", "ssh"])
def test_a_served_broker_asks_nobody_inside(resolver, smart, host, scheme):
    names = Names(localhost=["127.0.0.1"], rebind_test=["127.0.0.1"])
    user = "git@" if scheme == "ssh" else ""
    with pytest.raises(errors.NotAllowed):
        resolver(**SERVED, lookup=names).resolve(repos.RepoSpec.parse(f"{scheme}://{user}{host}:{smart.port}/o/r"))
    assert smart.requests == []


def test_the_one_local_person_may_ask_their_own_network(resolver, smart, known):
    assert resolver().resolve(repos.RepoSpec.parse(f"{smart.url}/o/r")).commit == known.main


@pytest.mark.parametrize("inside", ["http://127.0.0.2:{port}", "http://localhost:{port}", "http://2130706434:{port}"])
@pytest.mark.parametrize("ref", ["HEAD", "commit"])
def test_a_redirect_to_the_inside_is_not_followed(resolver, smart, known, inside, ref):
    with GitServer(known.root, host="127.0.0.2") as hidden:
        smart.redirects["/o/r"] = inside.format(port=hidden.port) + "/o/r"
        spec = repos.RepoSpec.parse(f"{smart.url}/o/r", ref=known.main if ref == "commit" else "HEAD")
        names = Names(localhost=["127.0.0.2"])
        with pytest.raises(errors.NotAllowed):
            resolver(**SERVED, allowed=HERE, lookup=names).resolve(spec)
        assert hidden.requests == []


def test_a_redirect_to_another_protocol_is_not_followed(resolver, smart):
    smart.redirects["/o/r"] = "file:///etc"
    with pytest.raises(errors.NotAllowed):
        resolver(**SERVED, allowed=HERE).resolve(repos.RepoSpec.parse(f"{smart.url}/o/r"))


def test_redirects_without_end_are_given_up(resolver, smart):
    smart.redirects["/o/r"] = "/o/r"
    with pytest.raises(errors.HostUnavailable):
        resolver(**SERVED, allowed=HERE).resolve(repos.RepoSpec.parse(f"{smart.url}/o/r"))


def test_a_redirect_to_a_permitted_host_is_followed(resolver, server, smart, known):
    server.redirects["/old/r"] = f"{smart.url}/o/r"
    found = resolver(**SERVED, allowed=HERE).resolve(repos.RepoSpec.parse(f"{server.url}/old/r"))
    assert found.commit == known.main
    assert smart.requests


@pytest.mark.parametrize("ref", ["HEAD", "unnamed"])
def test_a_name_that_changes_its_mind_leads_to_the_address_that_was_checked(resolver, server, known, ref):
    """The name means nothing to this computer's own resolver: only a pinned connection can get there."""
    names = Names(rebind_test=["127.0.0.1"])
    spec = repos.RepoSpec.parse(f"http://rebind.test:{server.port}/o/r", ref=getattr(known, ref, ref))
    found = resolver(**SERVED, allowed=HERE, lookup=names).resolve(spec)
    assert found.commit == getattr(known, ref, known.main)
    assert {sent["Host"] for sent in server.headers} == {f"rebind.test:{server.port}"}


@pytest.mark.parametrize("after", [1, 2])
def test_a_name_that_means_the_inside_the_second_time_gets_nothing(resolver, known, smart, after):
    with GitServer(known.root, host="127.0.0.2") as hidden:
        names = Names(rebind_test=["127.0.0.1"] * after + ["127.0.0.2"])
        asking = resolver(**SERVED, allowed=HERE, lookup=names)
        spec = repos.RepoSpec.parse(f"http://rebind.test:{smart.port}/o/r", ref=known.unnamed)
        with contextlib.suppress(errors.NotAllowed):
            assert asking.resolve(spec).commit == known.unnamed
        assert hidden.requests == []


@pytest.mark.parametrize(("name", "error"), [("rebind.test", None), ("other.test", errors.HostUnavailable)])
def test_over_https_the_certificate_is_still_the_one_of_the_name(resolver, known, tmp_path, monkeypatch, name, error):
    """The connection goes to an address, but who answers there must be who was asked for."""
    pem = certificate_for("rebind.test", tmp_path / "rebind.pem")
    for variable in ("SSL_CERT_FILE", "GIT_SSL_CAINFO"):
        monkeypatch.setenv(variable, str(pem))
    with GitServer(known.root, certificate=pem) as secure:
        spec = repos.RepoSpec.parse(f"https://{name}:{secure.port}/o/r", ref=known.unnamed)
        asking = resolver(**SERVED, allowed=HERE, lookup=Names(rebind_test=["127.0.0.1"], other_test=["127.0.0.1"]))
        with pytest.raises(error) if error else contextlib.nullcontext():
            assert asking.resolve(spec).commit == known.unnamed


def certificate_for(name: str, pem: Path) -> Path:
    """A key and a certificate that signs itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    today = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - dt.timedelta(days=1))
        .not_valid_after(today + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(secret + certificate.public_bytes(encoding))
    return pem


def test_gits_own_protocol_is_held_to_the_address_that_was_checked(resolver, known):
    with daemon(known.root) as port:
        spec = repos.RepoSpec.parse(f"git://rebind.test:{port}/o/r")
        found = resolver(**SERVED, allowed=HERE, lookup=Names(rebind_test=["127.0.0.1", "10.0.0.1"])).resolve(spec)
    assert (found.commit, found.repo_url) == (known.main, spec.repo)


@contextlib.contextmanager
def daemon(root: Path) -> Iterator[int]:
    """A real `git daemon`."""
    port = settings.free_port()
    where = [f"--base-path={root}", f"--port={port}", "--listen=127.0.0.1"]
    command = ["git", "daemon", "--export-all", *where]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            until(lambda: answers(port))
            yield port
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_ssh_is_held_to_the_address_that_was_checked_and_takes_no_key_along(resolver, known, tmp_path, monkeypatch):
    """An `ssh` that writes down how it was called and serves the repository itself."""
    told = tmp_path / "told"
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ssh"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {told}\nexec git-upload-pack {known.root}/o/r\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    spec = repos.RepoSpec.parse("git@rebind.test:o/r")
    found = resolver(**SERVED, allowed=HERE, lookup=Names(rebind_test=["127.0.0.1", "10.0.0.1"])).resolve(spec)
    assert found.commit == known.main
    words = told.read_text().splitlines()
    assert {"-oHostName=127.0.0.1", "-oIdentityAgent=none", "-oIdentityFile=none", "-oProxyCommand=none"} <= set(words)
    assert words[words.index("-F") + 1] == "/dev/null"


def test_plain_files_cannot_send_git_elsewhere(resolver, known, smart):
    """A dumb server may name other stores of objects; git would fetch from there, on any host."""
    with GitServer(known.root, host="127.0.0.2") as hidden, GitServer(known.root, smart=False) as dumb:
        folder = known.root / "o/r/objects"
        (folder / "info/http-alternates").write_text(f"{hidden.url}/o/r/objects\n")
        (folder / known.unnamed[:2] / known.unnamed[2:]).unlink()
        with pytest.raises(repos.RepoError):
            spec = repos.RepoSpec.parse(f"{dumb.url}/o/r", ref=known.unnamed)
            resolver(**SERVED, allowed=HERE).resolve(spec)
        assert hidden.requests == []


def test_the_hosts_that_the_operator_chose_may_be_inside(resolver, github, known):
    github.api_status = 503
    assert resolver(github, **SERVED).resolve(repos.RepoSpec.parse("o/r")).commit == known.main


def test_a_git_too_old_to_be_pinned_is_not_let_out(resolver, smart, monkeypatch):
    monkeypatch.setattr(running, "version", lambda: (2, 36))
    with pytest.raises(errors.HostUnavailable, match=r"2\.37"):
        resolver(**SERVED, allowed=HERE).resolve(repos.RepoSpec.parse(f"{smart.url}/o/r"))


def test_a_host_that_trickles_is_left(resolver, monkeypatch):
    """One byte at a time keeps every limit on silence; only a limit on the whole ends it."""
    monkeypatch.setattr(connecting, "SECONDS", 0.5)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        talking = threading.Thread(target=trickle, args=(listening, stop), daemon=True)
        talking.start()
        try:
            with pytest.raises(errors.HostTimeout):
                resolver(**SERVED, allowed=HERE).resolve(repos.RepoSpec.parse(f"http://127.0.0.1:{port}/o/r"))
        finally:
            stop.set()
            talking.join(5)


def trickle(listening: socket.socket, stop: threading.Event) -> None:
    connection, _ = listening.accept()
    with connection:
        while not stop.wait(0.05):
            try:
                connection.sendall(b"H")
            except OSError:
                return
