"""A container registry of our own: Debian's `docker-registry` on a free port of this computer, keeping all in one folder.

    with registry.running() as server:
        digest = server.push("o/r", "latest")             # by the registry's own upload protocol; no engine is needed
        ... f"{server.host}/o/r:latest" ...

`running(realm=url)` asks for a token from there (the registry's `silly` authority, which takes any), `running(private=True)`
for the user `ada` with the password `secret`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from broker import settings
from tests import servers
from tests.waiting import until

NEED = servers.Need(title="A container registry", programs=(("docker-registry",),), packages=("docker-registry",))
HTPASSWD = "ada:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True, kw_only=True)
class Registry:
    """A running registry."""

    host: str
    authorization: str = ""

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def push(self, name: str, tag: str, *, words: str = "hello", index: bool = False) -> str:
        """Put an image there whose one layer says these words; `index`: behind a list of platforms. Returns its digest."""
        layer, config = (self.blob(name, content) for content in (words.encode(), b'{"os": "linux"}'))
        told = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **layer}],
        }
        if not index:
            return self.manifest(name, tag, told)
        content = json.dumps(told).encode()
        digest = self.manifest(name, f"sha256:{hashlib.sha256(content).hexdigest()}", told)
        row = {
            "mediaType": MANIFEST,
            "digest": digest,
            "size": len(content),
            "platform": {"os": "linux", "architecture": "amd64"},
        }
        return self.manifest(name, tag, {"schemaVersion": 2, "mediaType": INDEX, "manifests": [row]})

    def blob(self, name: str, content: bytes) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        began = self.ask("POST", f"/v2/{name}/blobs/uploads/")
        where = httpx.URL(began.headers["location"]).copy_merge_params({"digest": digest})
        self.ask("PUT", str(where), content=content, headers={"Content-Type": "application/octet-stream"})
        return {"digest": digest, "size": len(content)}

    def manifest(self, name: str, reference: str, told: dict[str, object]) -> str:
        headers = {"Content-Type": str(told["mediaType"])}
        done = self.ask("PUT", f"/v2/{name}/manifests/{reference}", content=json.dumps(told).encode(), headers=headers)
        return done.headers["docker-content-digest"]

    def ask(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, content: bytes = b""
    ) -> httpx.Response:
        own = {"Authorization": self.authorization} if self.authorization else {}
        url = path if "://" in path else f"{self.url}{path}"
        answer = httpx.request(method, url, headers={**own, **(headers or {})}, content=content)
        assert answer.is_success, answer.text
        return answer

    def answers(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/v2/").status_code in (200, 401)
        return False


@contextlib.contextmanager
def running(*, realm: str = "", private: bool = False) -> Iterator[Registry]:
    """Starts in a fraction of a second."""
    found = NEED.found()
    assert found, "docker-registry is not on this computer."
    port = settings.free_port()
    with tempfile.TemporaryDirectory(prefix="abregistry-") as folder:
        config = Path(folder, "config.yml")
        config.write_text(json.dumps(configuration(Path(folder), port, realm, private)))  # JSON is YAML
        server = subprocess.Popen(
            [found[0], "serve", str(config)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        servers.keep(server.pid)
        basic = f"Basic {base64.b64encode(b'ada:secret').decode()}" if private else ""
        made = Registry(host=f"127.0.0.1:{port}", authorization=basic or ("Bearer any" if realm else ""))
        try:
            until(lambda: made.answers() or server.poll() is not None, seconds=20, what="the registry answers")
            yield made
        finally:
            server.terminate()
            server.wait(20)
            servers.kept.discard(server.pid)


def configuration(folder: Path, port: int, realm: str, private: bool) -> dict[str, object]:
    """The registry's own, in its own words."""
    told: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "kept")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if realm:
        told["auth"] = {"silly": {"realm": realm, "service": "registry.test"}}
    if private:
        (folder / "htpasswd").write_text(HTPASSWD)
        told["auth"] = {"htpasswd": {"realm": "ours", "path": str(folder / "htpasswd")}}
    return told
