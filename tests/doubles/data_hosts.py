"""Hosts of data sets as far as they are asked, each in the form that its published description gives.

    with ZenodoDouble() as zenodo:
        zenodo.record("1001", {"repo.zip": content})
        Settings(hosts={"zenodo": {"api": zenodo.api, "url": zenodo.url}})

Forms, from the hosts' own documentation (none is a recording): Zenodo and InvenioRDM, REST API of records and files; figshare,
`docs.figshare.com` version 2; HydroShare, `hsapi` (OpenAPI at /hsapi/); Dataverse, Native API guide; CKAN, action API version 3;
OSF, APIv2 (JSON:API); Software Heritage, web API version 1; doi.org, proxy server REST API (`/api/handles`).

On demand: `site.statuses["/path"] = (429, {"Retry-After": "120"})`; `site.breaks["/path"] = [1000]` hangs up after so many bytes,
once for each; `site.ranges = False` is a server that knows no ranges.
"""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

MODIFIED = "2024-02-27T21:15:54.573058"


class Site:
    """A web server whose answers are two dictionaries, by path, and by path with query before that."""

    def __init__(self) -> None:
        self.json: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.statuses: dict[str, tuple[int, dict[str, str]]] = {}
        self.breaks: dict[str, list[int]] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.ranges = True
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"site": self}))
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def asked(self, part: str) -> int:
        return sum(part in path for _, path, _ in self.requests)

    def serve(self, path: str, content: bytes) -> str:
        """The address under which this file is downloaded."""
        self.files[path] = content
        return f"{self.url}{path}"

    def posted(self, path: str) -> Any:
        """The answer to a POST; sites that know one say it."""
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Any

    def do_GET(self) -> None:
        self.site.requests.append((self.command, self.path, dict(self.headers)))
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        plain = unquote(urlsplit(self.path).path)
        if plain in self.site.statuses:
            status, headers = self.site.statuses[plain]
            self.answer(status, b'{"message": "no"}', headers)
        elif self.command == "POST":
            told = self.site.posted(plain)
            self.answer(404 if told is None else 200, json.dumps(told).encode(), {"Content-Type": "application/json"})
        elif self.path in self.site.json or plain in self.site.json:
            self.say(self.site.json.get(self.path, self.site.json.get(plain)))
        elif plain in self.site.files:
            self.file(plain, self.site.files[plain])
        else:
            self.answer(404, b'{"message": "not found"}')

    do_POST = do_HEAD = do_GET  # noqa: N815 - the names are http.server's

    def say(self, told: Any) -> None:
        told = told(self) if callable(told) else told
        content = told if isinstance(told, bytes) else json.dumps(told).encode()
        self.answer(200, content, {"Content-Type": "application/json"})

    def file(self, path: str, content: bytes) -> None:
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        begin, headers, status = 0, {"ETag": tag}, 200
        wanted = self.headers.get("Range", "")
        if self.site.ranges and wanted and self.headers.get("If-Range", tag) == tag:
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            status = 206
        if self.site.breaks.get(path):
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) - begin))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[begin : begin + self.site.breaks[path].pop(0)])
            self.wfile.flush()
            self.close_connection = True
            return
        self.answer(status, content[begin:], headers)

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass

    def query(self, name: str) -> str:
        return parse_qs(urlsplit(self.path).query).get(name, [""])[0]


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


class DoiDouble(Site):
    """doi.org: `/api/handles/<doi>`, responseCode 1 or 100."""

    def lead(self, doi: str, target: str) -> None:
        values = [
            {"index": 100, "type": "HS_ADMIN", "data": {"format": "admin", "value": {}}},
            {"index": 1, "type": "URL", "data": {"format": "string", "value": target}, "ttl": 86400},
        ]
        self.json[f"/api/handles/{doi}"] = {"responseCode": 1, "handle": doi, "values": values}


class ZenodoDouble(Site):
    """Zenodo's form of a record, with its files; `native` is InvenioRDM's, with the files beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.api = f"{self.url}/api"

    def record(
        self, number: str, files: dict[str, bytes], *, concept: str = "", native: bool = False, **metadata: Any
    ) -> None:
        own = f"{self.api}/records/{number}"
        rows = []
        for name, content in files.items():
            path = f"/api/records/{number}/files/{name}/content"
            url = self.serve(path, content)
            links = (
                {"content": url, "self": url.removesuffix("/content")} if native else {"self": quote(url, safe=":/")}
            )
            rows.append({"key": name, "size": len(content), "checksum": f"md5:{md5(content)}", "links": links})
        told: dict[str, Any] = {
            "id": number if native else int(number),
            "conceptrecid": concept,
            "metadata": {"title": "A record", "access_right": "open", **metadata},
            "links": {"self": own, "files": f"{own}/files"},
        }
        if native:
            told |= {"pids": {"doi": {"identifier": f"10.22002/{number}"}}, "files": {"enabled": True}}
            self.json[f"/api/records/{number}/files"] = {"enabled": True, "entries": rows}
        else:
            told |= {"doi": f"10.5281/zenodo.{number}", "files": rows}
        self.json[f"/api/records/{number}"] = told
        if concept:
            self.statuses[f"/api/records/{concept}"] = (302, {"Location": own})


class FigshareDouble(Site):
    """An article: its versions, each with up to ten files, and all files by pages."""

    def __init__(self) -> None:
        super().__init__()
        self.api = f"{self.url}/v2"

    def article(self, number: int, versions: dict[int, dict[str, bytes]], **more: Any) -> None:
        self.json[f"/v2/articles/{number}/versions"] = [
            {"version": version, "url": f"{self.api}/articles/{number}/versions/{version}"} for version in versions
        ]
        for version, files in versions.items():
            path = f"/v2/articles/{number}/versions/{version}"
            rows = [self.row(number, version, name, content) for name, content in files.items()]
            self.json[path] = {
                "id": number,
                "version": version,
                "title": "An article",
                "doi": f"10.6084/m9.figshare.{number}.v{version}",
                "figshare_url": f"https://figshare.com/articles/dataset/An_article/{number}/{version}",
                "is_embargoed": False,
                "is_confidential": False,
                "files": rows[:10],
                **more,
            }
            self.json[f"{path}/files"] = lambda handler, rows=rows: page_of(handler, rows)

    def row(self, number: int, version: int, name: str, content: bytes) -> dict[str, Any]:
        url = self.serve(f"/files/{number}/{version}/{name}", content)
        sums = {"supplied_md5": "", "computed_md5": md5(content)}
        return {"id": 1, "name": name, "size": len(content), "is_link_only": False, "download_url": url, **sums}


def page_of(handler: Handler, rows: list[Any]) -> list[Any]:
    page, size = int(handler.query("page") or 1), int(handler.query("page_size") or 10)
    return rows[(page - 1) * size : page * size]


class HydroShareDouble(Site):
    """A resource: its dates, its files by pages of two, and the files themselves below its page."""

    def __init__(self) -> None:
        super().__init__()
        self.api = f"{self.url}/hsapi"

    def resource(self, number: str, files: dict[str, bytes], modified: str = "2019-09-25T16:09:17.006152Z") -> None:
        dates = [
            {"type": "created", "start_date": "2019-01-01T00:00:00Z"},
            {"type": "modified", "start_date": modified},
        ]
        self.json[f"/hsapi/resource/{number}/scimeta/elements/"] = {"title": "A resource", "dates": dates}
        rows = []
        for path, content in files.items():
            url = self.serve(f"/resource/{number}/data/contents/{path}", content)
            rows.append(
                {
                    "file_name": path.rpartition("/")[2],
                    "url": f"https://www.hydroshare.org{urlsplit(url).path}",
                    "size": len(content),
                    "content_type": "text/plain",
                    "logical_file_type": "",
                    "modified_time": modified,
                    "checksum": md5(content),
                }
            )

        def listed(handler: Handler) -> dict[str, Any]:
            page = int(handler.query("page") or 1)
            more = len(rows) > page * 2
            return {
                "count": len(rows),
                "next": f"{self.api}/?page={page + 1}" if more else None,
                "previous": None,
                "results": rows[(page - 1) * 2 : page * 2],
            }

        self.json[f"/hsapi/resource/{number}/files/"] = listed


class DataverseDouble(Site):
    """A data set by its persistent id, in versions."""

    def dataset(self, doi: str, versions: dict[str, dict[str, bytes]], **more: Any) -> None:
        """`more` goes into each version, as `versionState` does. Files named `*.tab` were ingested from `*.csv`."""
        authority, _, identifier = doi.partition("/")
        told = {label: self.version(label, files, **more) for label, files in versions.items()}
        newest = told[max(told)]
        self.json[f"/api/datasets/:persistentId/?persistentId=doi:{doi}"] = {
            "status": "OK",
            "data": {
                "id": 77,
                "identifier": identifier,
                "authority": authority,
                "protocol": "doi",
                "persistentUrl": f"https://doi.org/{doi}",
                "latestVersion": newest,
            },
        }
        for label, version in told.items():
            self.json[f"/api/datasets/77/versions/{label}"] = {"status": "OK", "data": version}

    def version(self, label: str, files: dict[str, bytes], /, **more: Any) -> dict[str, Any]:
        major, _, minor = label.partition(".")
        rows = []
        for number, (path, content) in enumerate(files.items(), int(major) * 100 + int(minor) * 10):
            folder, _, name = path.rpartition("/")
            held: dict[str, Any] = {"id": number, "filename": name, "filesize": len(content), "md5": md5(content)}
            if name.endswith(".tab"):
                held |= {"originalFileName": name.removesuffix(".tab") + ".csv", "originalFileFormat": "text/csv"}
            self.serve(f"/api/access/datafile/{number}", content)
            rows.append(
                {"label": name, "restricted": name.startswith("secret"), "directoryLabel": folder, "dataFile": held}
            )
        state = {"versionState": "RELEASED", "versionNumber": int(major), "versionMinorNumber": int(minor)}
        return {"id": 1, **state, "files": rows, **more}

    def file(self, doi: str, owner: str) -> None:
        """A file with a DOI of its own."""
        asked = f"/api/files/:persistentId/?persistentId=doi:{doi}&returnDatasetVersion=true"
        self.json[asked] = {"status": "OK", "data": {"datasetVersion": {"datasetPersistentId": f"doi:{owner}"}}}


class CkanDouble(Site):
    """Packages, and earlier states of them by activity."""

    def package(
        self, name: str, resources: list[dict[str, Any]], *, activity: str = "", modified: str = MODIFIED
    ) -> None:
        told = {"id": "0-0", "name": name, "title": "A data set", "metadata_modified": modified, "resources": resources}
        action = "/api/3/action"
        if activity:
            self.json[f"{action}/activity_data_show?id={activity}&object_type=package"] = {
                "success": True,
                "result": told,
            }
        else:
            self.json[f"{action}/package_show?id={quote(name)}"] = {"success": True, "result": told}


class OsfDouble(Site):
    """A node with folders, two rows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.api = f"{self.url}/v2"

    def node(self, guid: str, files: dict[str, bytes], kind: str = "nodes", **attributes: Any) -> None:
        self.json[f"/v2/guids/{guid}/"] = {
            "data": {"id": guid, "type": kind, "attributes": {"title": "A project", "public": True, **attributes}}
        }
        folders: dict[str, list[Any]] = {"/": []}
        for path, content in files.items():
            parts = path.split("/")
            for depth in range(1, len(parts)):
                self.folder("/".join(parts[:depth]), folders)
            url = self.serve(f"/download/{len(self.files):05d}/", content)
            hashes = {"md5": md5(content), "sha256": hashlib.sha256(content).hexdigest()}
            told = {"kind": "file", "name": parts[-1], "materialized_path": f"/{path}", "size": len(content)}
            told |= {"path": f"/{len(self.files):024x}", "current_version": 3, "extra": {"hashes": hashes}}
            folders[inner("/".join(parts[:-1]))].append(
                {"id": "1", "type": "files", "attributes": told, "links": {"download": url}}
            )
        for path, rows in folders.items():
            self.json[f"/v2/{kind}/{guid}/files/osfstorage{path}"] = lambda handler, rows=rows: self.page(handler, rows)

    def folder(self, path: str, folders: dict[str, list[Any]]) -> None:
        if inner(path) not in folders:
            folders[inner(path)] = []
            told = {
                "kind": "folder",
                "name": path.rpartition("/")[2],
                "path": inner(path),
                "materialized_path": f"/{path}/",
            }
            folders[inner(path.rpartition("/")[0])].append(
                {"id": "2", "type": "files", "attributes": told, "links": {}}
            )

    def page(self, handler: Handler, rows: list[Any]) -> dict[str, Any]:
        page = int(handler.query("page") or 1)
        following = f"{self.url}{handler.path}" if len(rows) > page * 2 else None
        return {"data": rows[(page - 1) * 2 : page * 2], "links": {"first": None, "next": following}}


def inner(path: str) -> str:
    """OSF's own name of a folder."""
    return f"/{hashlib.md5(path.encode()).hexdigest()[:24]}/" if path else "/"


class SwhDouble(Site):
    """The archive's objects, and its vault, which says `new`, `pending` and then `done`."""

    def __init__(self) -> None:
        super().__init__()
        self.api = f"{self.url}/api/1"
        self.cooked: dict[str, list[str]] = {}

    def directory(self, number: str, bundle: bytes, states: tuple[str, ...] = ("new", "pending", "done")) -> None:
        self.json[f"/api/1/directory/{number}/"] = [{"type": "file", "name": "README.md", "dir_id": number}]
        vault = f"/api/1/vault/flat/swh:1:dir:{number}/"
        self.cooked[vault] = list(states)
        self.files[f"{vault}raw/"] = bundle
        self.json[vault] = lambda handler: self.status(vault)

    def posted(self, path: str) -> Any:
        return self.status(path) if path in self.cooked else None

    def status(self, vault: str) -> dict[str, Any]:
        states = self.cooked[vault]
        status = states.pop(0) if len(states) > 1 else states[0]
        words = {"pending": "Creating tarball...", "failed": "Content is missing"}.get(status)
        return {"id": 42, "status": status, "progress_message": words, "fetch_url": f"{self.url}{vault}raw/"}

    def revision(self, number: str, directory: str) -> None:
        self.json[f"/api/1/revision/{number}/"] = {"id": number, "directory": directory, "message": "hello"}

    def release(self, number: str, target: str, kind: str = "revision") -> None:
        self.json[f"/api/1/release/{number}/"] = {"id": number, "target": target, "target_type": kind, "name": "v1"}

    def snapshot(self, number: str, branches: dict[str, tuple[str, str]], shown: int = 1000) -> None:
        told = {name: {"target_type": kind, "target": target} for name, (kind, target) in branches.items()}

        def page(handler: Handler) -> dict[str, Any]:
            begin = handler.query("branches_from")
            names = [name for name in sorted(told) if name >= begin][: int(handler.query("branches_count") or shown)]
            return {"id": number, "branches": {name: told[name] for name in names}, "next_branch": None}

        self.json[f"/api/1/snapshot/{number}/"] = page

    def origin(self, address: str, snapshot: str) -> None:
        self.json[f"/api/1/origin/{address}/visit/latest/"] = {
            "origin": address,
            "status": "full",
            "snapshot": snapshot,
        }
