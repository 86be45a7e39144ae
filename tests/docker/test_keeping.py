"""Images that are kept: found in a registry, brought by their digest, listed and removed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import commands
from tests.conftest import wanted
from tests.docker.test_building import Yard
from tests.servers import registry
from tests.servers.docker import Engine

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def yard(tmp_path: Path, engine: Engine) -> Iterator[Yard]:
    made = Yard(tmp_path, engine)
    yield made
    made.close()


@pytest.fixture
def shop() -> Iterator[registry.Registry]:
    wanted(registry.NEED)
    with registry.running() as server:
        yield server


def small(words: str) -> dict[str, str]:
    """A repository whose image is one little file."""
    return {"Dockerfile": 'FROM scratch\nCOPY words /\nCMD ["/nothing"]\n', "words": words}


@pytest.fixture
def anybinder(yard, tmp_path, monkeypatch):
    configuration = {"engine": "docker", "engine_url": yard.engine.url, "cache": str(yard.folder / "cache")}
    backend = {"name": "containers", "provider": "local", "configuration": configuration}
    with commands.images(monkeypatch, tmp_path / "home", backend) as run:
        yield run


def test_what_one_engine_has_built_another_finds_in_the_registry(yard, shop):
    yard.more = {"registry": f"{shop.host}/kept"}
    spec = yard.spec(small("from afar"))
    first = yard.start(spec).end()
    assert first.image.startswith(f"{shop.host}/kept/o-r-")
    assert first.said("pushing") == [f"Pushing {first.image}"]

    built = yard.labels(first.image)
    yard.engine.docker("rmi", "--force", first.image)
    again = yard.start({**spec, "cache": str(yard.folder / "another")}).end()
    assert again.image == first.image
    assert again.said("building") == again.said("pushing") == []
    assert yard.labels(again.image) == built


def test_a_private_registry_is_opened_by_the_login_in_the_engines_configuration(yard, tmp_path):
    wanted(registry.NEED)
    config = tmp_path / "config"
    (config / "cli-plugins").mkdir(parents=True)
    (config / "cli-plugins/docker-buildx").symlink_to(yard.engine.config / "cli-plugins/docker-buildx")
    with registry.running(private=True) as shop:
        login = base64.b64encode(b"ada:secret").decode()
        (config / "config.json").write_text(json.dumps({"auths": {shop.host: {"auth": login}}}))
        yard.more = {"registry": shop.host, "config": str(config)}
        spec = yard.spec(small("in private"))
        first = yard.start(spec).end()
        assert first.said("pushing") == [f"Pushing {first.image}"]
        yard.engine.docker("rmi", "--force", first.image)
        assert yard.start(spec).end().said("building") == []

        # Nobody else's Dockerfile is built with that login.
        yard.engine.docker("rmi", "--force", first.image)
        stolen = yard.build({"Dockerfile": f"FROM {first.image}\n"}, name="e/e")
        assert "The image could not be built: " in stolen.failure


def test_a_registry_that_is_out_of_reach_is_a_line_and_no_failure(yard):
    yard.more = {"registry": "127.0.0.1:9"}
    built = yard.build(small("alone"))
    assert built.image.startswith("127.0.0.1:9/anybinder/o-r-")
    assert any(line.startswith("The registry does not help: ") for line in built.said("fetching"))
    assert built.said("pushing")[1].startswith("The image stays on this engine only: ")


def test_an_image_by_its_digest_is_brought_and_not_built(yard, shop):
    yard.engine.docker("tag", yard.build(small("known")).image, f"{shop.host}/some/image:1")
    yard.engine.docker("push", "--quiet", f"{shop.host}/some/image:1")
    told = yard.engine.docker("image", "inspect", f"{shop.host}/some/image:1", "--format", "{{json .RepoDigests}}")
    name = next(one for one in json.loads(told) if one.startswith(shop.host))
    yard.engine.docker("rmi", "--force", *yard.tags(), f"{shop.host}/some/image:1")

    spec = yard.spec({"x": ""}, name="o/s", content={"kind": "image", "image": name})
    assert yard.start(spec).end().image == name
    assert yard.engine.has(name)
    yard.engine.docker("rmi", name)

    missing = yard.start(
        {**spec, "content": {"kind": "image", "image": f"{shop.host}/no/such@sha256:{'0' * 64}"}}
    ).end()
    assert missing.failure.startswith(f"The image {shop.host}/no/such@sha256:000")
    assert "could not be fetched" in missing.failure


def test_images_are_listed_and_removed_unless_a_session_uses_them(yard, anybinder):
    spec = yard.spec(small("kept"))
    image = yard.start(spec).end().image
    [listed] = [row for row in map(json.loads, anybinder("--json").splitlines()) if row["name"] == image]
    assert (listed["repo"], listed["commit"], listed["in_use"]) == (spec["repo_url"], spec["commit"], "")
    assert listed["size"] >= 4
    assert image in anybinder()

    container = yard.engine.docker("create", image)
    try:
        assert f"{image} is in use by a session." in anybinder("remove", image, code=1)
    finally:
        yard.engine.docker("rm", "--force", container)
    assert "There is nothing to remove." in anybinder("remove", "--unused-for", "1h")
    assert image in anybinder("remove", "--all", "--dry-run")
    assert yard.engine.has(image)
    assert anybinder("remove", listed["key"][:12]) == f"{image}\n"
    assert not yard.engine.has(image)
    assert "there is no such image or environment" in anybinder("remove", image, code=1)
