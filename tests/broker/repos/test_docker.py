"""`docker`: images by name, at Debian's own registry; tokens come from a double that speaks the published token protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from broker import repos
from broker.repos import errors
from tests.conftest import wanted
from tests.doubles.data_hosts import Site
from tests.servers import registry

DIGEST = f"sha256:{'a1' * 32}"


class Tokens(Site):
    """`GET <realm>?service=…&scope=repository:<name>:pull`, answered with a token, by some as `access_token`."""

    def __init__(self, told: Any) -> None:
        super().__init__()
        self.json["/token"] = told


@pytest.fixture(scope="module")
def shop() -> Iterator[registry.Registry]:
    wanted(registry.NEED)
    with registry.running() as server:
        yield server


@pytest.fixture
def resolve(resolver):
    asking = resolver(resolve_cache_seconds=0)
    return lambda text: asking.resolve(repos.RepoSpec.parse(text))


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("docker/python", "docker/docker.io/library/python:latest"),
        ("docker/python:3.12", "docker/docker.io/library/python:3.12"),
        ("docker/jupyter/base-notebook", "docker/docker.io/jupyter/base-notebook:latest"),
        ("docker/docker.io/python:3.12", "docker/docker.io/library/python:3.12"),
        ("docker/index.docker.io/library/python", "docker/docker.io/library/python:latest"),
        ("docker/quay.io/a/b/c:1.0_x", "docker/quay.io/a/b/c:1.0_x"),
        ("docker/localhost:5000/x:y", "docker/localhost:5000/x:y"),
        (f"docker/ghcr.io/o/r@{DIGEST}", f"docker/ghcr.io/o/r@{DIGEST}"),
        (f"docker/ghcr.io/o/r:tag@{DIGEST.upper().replace('SHA', 'sha')}", f"docker/ghcr.io/o/r@{DIGEST}"),
        ("docker/quay.io%2Fa%2Fb%3A1", "docker/quay.io/a/b:1"),
        ("docker://quay.io/a/b:1", "docker/quay.io/a/b:1"),
        ("docker.io/library/python:3.12", "docker/docker.io/library/python:3.12"),
        (f"quay.io/x/y@{DIGEST}", f"docker/quay.io/x/y@{DIGEST}"),
        ("https://hub.docker.com/_/python", "docker/docker.io/library/python:latest"),
        ("https://hub.docker.com/r/jupyter/scipy-notebook/tags", "docker/docker.io/jupyter/scipy-notebook:latest"),
        ("https://quay.io/repository/jupyter/base-notebook?tab=tags", "docker/quay.io/jupyter/base-notebook:latest"),
        ("https://mybinder.org/v2/docker/quay.io/a/b:1?urlpath=lab", "docker/quay.io/a/b:1"),
    ],
)
def test_a_name_means_what_it_means_to_docker_and_is_written_out(text, means):
    spec = repos.RepoSpec.parse(text)
    assert str(spec) == means
    assert str(repos.RepoSpec.parse(means)) == means


@pytest.mark.parametrize("index", [False, True])
def test_a_tag_is_what_it_is_right_now(shop, resolve, index):
    first = shop.push("o/r", "latest", words="first", index=index)
    found = resolve(f"docker/{shop.host}/o/r")
    assert (found.commit, found.slug, found.lasting) == (first, "o-r", "")
    assert found.content == {"kind": "image", "image": f"{shop.host}/o/r@{first}"}
    assert found.spec_string == f"docker/{shop.host}/o/r@{first}"
    second = shop.push("o/r", "latest", words="second", index=index)
    assert resolve(f"docker/{shop.host}/o/r:latest").commit == second
    assert resolve(found.spec_string).commit == first


def test_no_such_image_tag_or_digest_is_a_sentence_and_nothing_else_is_taken(shop, resolve):
    shop.push("o/r", "latest")
    for name in ("o/nothing", "o/r:main", f"o/r@{DIGEST}"):
        with pytest.raises(errors.NotFound, match="There is no image"):
            resolve(f"docker/{shop.host}/{name}")


@pytest.mark.parametrize("told", [{"token": "any"}, {"access_token": "any", "expires_in": 60}])
def test_a_registry_that_wants_a_token_is_asked_with_one(resolve, told):
    wanted(registry.NEED)
    with Tokens(told) as tokens, registry.running(realm=f"{tokens.url}/token") as shop:
        digest = shop.push("o/r", "1.0")
        assert resolve(f"docker/{shop.host}/o/r:1.0").commit == digest
    method, path, headers = tokens.requests[0]
    assert method == "GET"
    assert "service=registry.test" in path
    assert "scope=repository%3Ao%2Fr%3Apull" in path
    assert "Authorization" not in headers


@pytest.mark.parametrize(
    ("told", "error"),
    [(b"<html>", errors.HostUnavailable), ({}, errors.HostUnavailable), ({"token": "a\r\nb"}, errors.HostUnavailable)],
)
def test_a_token_that_makes_no_sense_is_the_registrys_fault(resolve, told, error):
    wanted(registry.NEED)
    with Tokens(told) as tokens, registry.running(realm=f"{tokens.url}/token") as shop, pytest.raises(error):
        resolve(f"docker/{shop.host}/o/r:1.0")


def test_a_private_image_is_shown_to_the_operators_own_user_and_to_nobody_else(resolve, resolver):
    wanted(registry.NEED)
    with registry.running(private=True) as shop:
        digest = shop.push("o/r", "1.0")
        with pytest.raises(errors.NotFound, match="without a password"):
            resolve(f"docker/{shop.host}/o/r:1.0")
        own = resolver(hosts={"docker": {"url": shop.url, "token": "ada:secret"}})
        assert own.resolve(repos.RepoSpec.parse(f"docker/{shop.host}/o/r:1.0")).commit == digest


def test_a_served_broker_asks_no_registry_on_a_private_network_but_the_operators(shop, resolver):
    digest = shop.push("o/r", "1.0")
    served = {"public_url": "https://hub.example", "session_domain": "sessions.example"}
    spec = repos.RepoSpec.parse(f"docker/{shop.host}/o/r:1.0")
    with pytest.raises(errors.NotAllowed, match="public internet"):
        resolver(**served).resolve(spec)
    assert resolver(hosts={"docker": {"url": shop.url}}, **served).resolve(spec).commit == digest


class Odd(Site):
    """A registry that answers as it is told to."""

    def manifest(self, answer: Any) -> str:
        self.json["/v2/o/r/manifests/latest"] = answer
        return f"docker/{self.url.removeprefix('http://')}/o/r"


def test_an_old_registry_that_tells_no_digest_is_read(resolve):
    with Odd() as odd:
        found = resolve(odd.manifest(b'{"schemaVersion": 2}'))
    assert found.commit == "sha256:" + hashlib.sha256(b'{"schemaVersion": 2}').hexdigest()


@pytest.mark.parametrize(
    ("status", "headers", "error", "words"),
    [
        (429, {"Retry-After": "180"}, errors.RateLimited, "3 minutes"),
        (503, {}, errors.HostUnavailable, "Try again"),
        (403, {}, errors.NotFound, "not public"),
        (401, {"WWW-Authenticate": 'Bearer realm="file:///etc/passwd"'}, errors.NotFound, "without a password"),
        (401, {}, errors.NotFound, "without a password"),
        (302, {"Location": "http://127.0.0.1:9/x"}, errors.HostUnavailable, "trouble"),
    ],
)
def test_what_a_registry_refuses_is_a_sentence(resolve, status, headers, error, words):
    with Odd() as odd:
        odd.statuses["/v2/o/r/manifests/latest"] = (status, headers)
        with pytest.raises(error, match=words):
            resolve(odd.manifest({}))


def test_the_double_is_asked_as_a_registry_is(resolve):
    """HEAD, with every form of manifest that there is: an index must not be exchanged for one platform's."""
    with Odd() as odd:
        resolve(odd.manifest(b"{}"))
        method, _, headers = odd.requests[0]
    assert method == "HEAD"
    assert "oci.image.index" in headers["Accept"]
    assert "manifest.list" in headers["Accept"]
