"""The builder, where what was asked for is a list of files: bringing them, unpacking them, and building what they are."""

from __future__ import annotations

import hashlib
import io
import ipaddress
import json
import os
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker import repos, settings
from broker.environments import cache, downloading, fetching, installing, programs, unpacking
from broker.environments.programs import Failed
from tests.doubles.data_hosts import OsfDouble, Site, SwhDouble, ZenodoDouble, md5

FOLDER = Path(cache.__file__).parent
BIG = os.urandom(3_000_000)
DIR = "d" * 40


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        yield server


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "BASE", ("pip",))


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are written down and not made."""
    pauses: list[float] = []
    monkeypatch.setattr(programs, "pause", pauses.append)
    return pauses


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    return lambda: "\n".join(json.loads(line)["message"] for line in capsys.readouterr().out.splitlines())


def spec_of(folder: Path, content: dict[str, Any], **more: Any) -> dict[str, Any]:
    for name in ("home", "runtime"):
        (folder / name).mkdir(exist_ok=True)
    return {
        "repo_url": "https://doi.org/10.5281/zenodo.1",
        "commit": "1001",
        "title": "zenodo.1001",
        "subdir": "",
        "build_seconds": 300,
        "clone_megabytes": 50,
        "busy_hours": 24,
        "home": str(folder / "home"),
        "cache": str(folder / "cache"),
        "runtime": str(folder / "runtime"),
        "python_downloads": False,
        "content": content,
        **more,
    }


def listing(*files: dict[str, Any], unpack: bool = False, key: str = "k") -> dict[str, Any]:
    return {"kind": "files", "files": list(files), "unpack": unpack, "key": key}


def row(site: Site, path: str, content: bytes, **more: Any) -> dict[str, Any]:
    return {"url": site.serve(f"/{path}", content), "path": path, "size": len(content), "md5": md5(content), **more}


def brought(folder: Path, *files: dict[str, Any], **more: Any) -> Path:
    fetching.fetch(spec_of(folder, listing(*files, unpack=more.pop("unpack", False)), **more), folder / "tree")
    return folder / "tree"


def refusal(folder: Path, *files: dict[str, Any], **more: Any) -> str:
    with pytest.raises(Failed) as failure:
        brought(folder, *files, **more)
    return str(failure.value)


# Bringing files


def test_files_are_brought_to_where_the_list_says(site, tmp_path, said):
    tree = brought(tmp_path, row(site, "a.txt", b"a"), row(site, "deep/er/b c.txt", b"b"), row(site, "empty", b""))
    assert (tree / "deep/er/b c.txt").read_bytes() == b"b"
    assert (tree / "empty").read_bytes() == b""
    assert sorted(path.name for path in tree.rglob("*") if path.is_file()) == ["a.txt", "b c.txt", "empty"]
    assert "Fetching zenodo.1001: 3 files" in said()


def test_a_connection_that_breaks_is_taken_up_where_it_broke(site, tmp_path, said, hasty):
    file = row(site, "big", BIG)
    site.breaks["/big"] = [1_000_000, 500_000]
    assert (brought(tmp_path, file) / "big").read_bytes() == BIG
    wanted = [headers.get("Range") for _, _, headers in site.requests]
    assert wanted == [None, "bytes=1000000-", "bytes=1500000-"]
    assert hasty == [1.0, 2.0]
    assert "the connection broke" in said()


@pytest.mark.parametrize("change", ["no ranges", "other bytes"])
def test_where_it_cannot_be_taken_up_it_begins_anew(site, tmp_path, change):
    file = row(site, "big", BIG)
    site.breaks["/big"] = [1_000_000]
    if change == "no ranges":
        site.ranges = False
    else:
        other = BIG[::-1]
        file |= {"md5": md5(other)}
        site.files["/big"] = other
        site.breaks["/big"] = [0]
        site.breaks["/big"] = [1_000_000]
    assert md5((brought(tmp_path, file) / "big").read_bytes()) == file["md5"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"md5": "0" * 32}, "checksum"), ({"sha256": "0" * 64}, "checksum"), ({"size": 7}, "7 are listed")],
)
def test_what_is_not_what_was_listed_is_refused_after_some_tries(site, tmp_path, wrong, words):
    assert words in refusal(tmp_path, row(site, "a", b"a") | wrong)
    assert site.asked("/a") == downloading.ATTEMPTS
    assert list((tmp_path / "tree").iterdir()) == []


def test_sha256_is_checked(site, tmp_path):
    file = row(site, "a", b"a") | {"sha256": hashlib.sha256(b"a").hexdigest()}
    assert (brought(tmp_path, file) / "a").exists()


@pytest.mark.parametrize(
    ("status", "headers", "words", "tries"),
    [
        (404, {}, "no longer has a file", 1),
        (410, {}, "no longer has a file", 1),
        (403, {}, "make it public", 1),
        (418, {}, "status 418", 1),
        (503, {}, "trouble (status 503)", 5),
        (429, {"Retry-After": "7"}, "trouble (status 429)", 5),
    ],
)
def test_what_a_server_refuses_is_a_sentence_and_asked_again_only_where_that_helps(
    site, tmp_path, hasty, status, headers, words, tries
):
    file = row(site, "a", b"a")
    site.statuses["/a"] = (status, headers)
    assert words in refusal(tmp_path, file)
    assert len(site.requests) == tries
    assert not headers or hasty == [7.0, 7.0, 7.0, 8.0]


def test_a_server_that_is_gone_is_a_sentence(tmp_path):
    url = f"http://127.0.0.1:{settings.free_port()}/a"
    assert "cannot be reached" in refusal(tmp_path, {"url": url, "path": "a", "size": None})


def test_more_than_the_limit_is_not_brought_whatever_the_list_says(site, tmp_path):
    files = [row(site, name, BIG) | {"size": None} for name in ("a", "b")]
    assert "more than 5 MB" in refusal(tmp_path, *files, clone_megabytes=5)


def test_what_takes_too_long_is_given_up(site, tmp_path):
    assert "takes too long" in refusal(tmp_path, row(site, "a", BIG), build_seconds=-1)


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "", ".", "a\\b", "x\0y", "y" * 300])
def test_a_name_that_leads_out_is_not_written(site, tmp_path, path):
    words = refusal(tmp_path, row(site, "a", b"a") | {"path": path})
    assert any(each in words for each in ("leads out", "longer", "twice"))
    assert site.requests == []


def test_one_name_twice_is_refused(site, tmp_path):
    assert "twice" in refusal(tmp_path, row(site, "a", b"a"), row(site, "a", b"a"))


# Where a download leads


def test_redirects_are_followed_but_only_on_the_web(site, tmp_path):
    file = row(site, "a", b"a")
    site.statuses["/old"] = (302, {"Location": file["url"]})
    assert (brought(tmp_path, file | {"url": f"{site.url}/old"}) / "a").exists()
    for number, target in enumerate(("file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x")):
        site.statuses["/old"] = (302, {"Location": target})
        folder = tmp_path / str(number)
        folder.mkdir()
        assert "not of the web" in refusal(folder, file | {"url": f"{site.url}/old"})


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x.org/a", "gopher://x", "", "http://"])
def test_an_address_that_is_not_of_the_web_is_refused(tmp_path, url):
    assert "not of the web" in refusal(tmp_path, {"url": url, "path": "a", "size": None})


def test_going_round_in_circles_ends(site, tmp_path):
    site.statuses["/round"] = (302, {"Location": f"{site.url}/round"})
    assert "round in circles" in refusal(tmp_path, {"url": f"{site.url}/round", "path": "a", "size": None})


def test_nothing_leads_from_the_internet_into_a_private_network(site, tmp_path, monkeypatch):
    own = downloading.addresses
    port = site.url.rpartition(":")[2]
    public = [ipaddress.ip_address("93.184.216.34")]
    monkeypatch.setattr(downloading, "addresses", lambda host: public if host == "localhost" else own(host))
    file = row(site, "a", b"a")
    site.statuses["/old"] = (302, {"Location": file["url"]})
    assert "private network" in refusal(tmp_path, file | {"url": f"http://localhost:{port}/old"})


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "168.63.129.16", "::ffff:169.254.169.254", "fe80::1", "64:ff9b::a9fe:a9fe"]
)
def test_where_clouds_keep_their_keys_is_never_asked(tmp_path, monkeypatch, address):
    found = [downloading.plain(ipaddress.ip_address(address))]
    monkeypatch.setattr(downloading, "addresses", lambda host: found)
    assert "Nothing is fetched from" in refusal(
        tmp_path, {"url": "http://rebound.example/x", "path": "a", "size": None}
    )


# Archives that are made on demand


def test_an_archive_that_must_be_made_is_waited_for(tmp_path, said, hasty):
    with SwhDouble() as swh:
        swh.directory(DIR, tar({f"swh:1:dir:{DIR}/hello.txt": b"hello"}, "gz"))
        vault = f"{swh.api}/vault/flat/swh:1:dir:{DIR}/"
        tree = brought(
            tmp_path, {"url": f"{vault}raw/", "path": "bundle.tar.gz", "size": None, "cook": vault}, unpack=True
        )
        assert [method for method, _, _ in swh.requests] == ["POST", "GET", "GET", "GET"]
    assert (tree / "hello.txt").read_text() == "hello"
    assert hasty == [downloading.POLL] * 2
    assert "The archive is being made: Creating tarball..." in said()


def test_an_archive_that_cannot_be_made_is_a_sentence(tmp_path):
    with SwhDouble() as swh:
        swh.directory(DIR, b"", states=("new", "failed"))
        vault = f"{swh.api}/vault/flat/swh:1:dir:{DIR}/"
        words = refusal(tmp_path, {"url": f"{vault}raw/", "path": "b.tar.gz", "size": None, "cook": vault}, unpack=True)
    assert "cannot be made: Content is missing" in words


# Unpacking


def zipped(files: dict[str, bytes | tuple[bytes, int]]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            data, mode = content if isinstance(content, tuple) else (content, stat.S_IFREG | 0o644)
            entry = zipfile.ZipInfo(name)
            entry.external_attr, entry.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return made.getvalue()


def tar(files: dict[str, bytes | tarfile.TarInfo], compression: str = "") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=f"w:{compression}") as archive:
        for name, content in files.items():
            entry = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            entry.name = name
            if isinstance(content, bytes):
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
            else:
                archive.addfile(entry)
    return made.getvalue()


def entry(kind: bytes, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo("x")
    made.type, made.linkname = kind, target
    return made


def unpacked(folder: Path, content: bytes, name: str = "a.zip", limit: int = 10_000_000) -> Path:
    (folder / "download").mkdir()
    (folder / "download" / name).write_bytes(content)
    unpacking.unpack(folder / "download" / name, folder / "tree", limit=limit)
    return folder / "tree"


def damage(folder: Path, content: bytes, **more: Any) -> str:
    with pytest.raises(Failed) as failure:
        unpacked(folder, content, **more)
    return str(failure.value)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


MAKERS = {
    "zip": zipped,
    "tar": tar,
    "tar.gz": lambda files: tar(files, "gz"),
    "tar.bz2": lambda files: tar(files, "bz2"),
    "tar.xz": lambda files: tar(files, "xz"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_an_archive_is_unpacked_without_the_folder_around_everything(tmp_path, kind):
    tree = unpacked(tmp_path, MAKERS[kind]({"r-1.0/README.md": b"hello", "r-1.0/deep/a.py": b"a"}), name=f"r.{kind}")
    assert (tree / "README.md").read_text() == "hello"
    assert (tree / "deep/a.py").exists()
    assert names(tmp_path) == ["download", "tree"]


@pytest.mark.parametrize("kind", MAKERS)
def test_two_things_at_the_top_stay_where_they_are(tmp_path, kind):
    tree = unpacked(tmp_path, MAKERS[kind]({"./a/x": b"1", "./b": b"2"}), name="any")
    assert names(tree) == ["a", "b"]


def test_what_is_no_archive_stays_a_file(tmp_path):
    assert (unpacked(tmp_path, b"no archive", name="a.zip") / "a.zip").read_bytes() == b"no archive"


def test_what_a_mac_leaves_behind_is_no_folder_of_its_own(tmp_path):
    tree = unpacked(tmp_path, zipped({"r/a": b"a", "__MACOSX/r/._a": b"x", ".DS_Store": b"x"}))
    assert names(tree) == ["a"]


def test_executables_stay_executable_and_nothing_else_of_the_mode_counts(tmp_path):
    tree = unpacked(tmp_path, zipped({"run": (b"#!", stat.S_IFREG | 0o6755), "a": b"a"}))
    assert stat.S_IMODE((tree / "run").stat().st_mode) == 0o755
    assert stat.S_IMODE((tree / "a").stat().st_mode) == 0o644


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "..", "a\\..\\x"])
def test_an_entry_that_leads_out_is_refused(tmp_path, kind, name):
    assert "leads out" in damage(tmp_path, MAKERS[kind]({"a/b": b"1", name: b"2"}))


def test_links_inside_stay_links_and_hard_links_become_files(tmp_path):
    tree = unpacked(
        tmp_path,
        tar(
            {
                "r/a": b"a",
                "r/s": entry(tarfile.SYMTYPE, "a"),
                "r/deep/up": entry(tarfile.SYMTYPE, "../a"),
                "r/h": entry(tarfile.LNKTYPE, "r/a"),
            }
        ),
    )
    assert (tree / "s").readlink() == Path("a")
    assert (tree / "deep/up").read_bytes() == (tree / "h").read_bytes() == b"a"


@pytest.mark.parametrize(
    "files",
    [
        {"a": b"a", "l": entry(tarfile.SYMTYPE, "/etc/passwd")},
        {"a": b"a", "l": entry(tarfile.SYMTYPE, "../../etc")},
        {"a": b"a", "d/l": entry(tarfile.SYMTYPE, ".."), "t": entry(tarfile.SYMTYPE, "d/l/../..")},
        {"a": b"a", "h": entry(tarfile.LNKTYPE, "../../etc/passwd")},
        {"a": b"a", "h": entry(tarfile.LNKTYPE, "/etc/passwd")},
    ],
)
def test_links_that_lead_out_are_refused_by_whatever_way(tmp_path, files):
    assert "leads out" in damage(tmp_path, tar(files))


def test_nothing_is_written_through_a_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    content = tar({"a": b"a", "l": entry(tarfile.SYMTYPE, str(outside)), "l/x": b"x"})
    assert damage(tmp_path, content)
    assert list(outside.iterdir()) == []


def test_a_zip_that_links_out_is_refused(tmp_path):
    assert "leads out" in damage(tmp_path, zipped({"a": b"a", "l": (b"../../etc", stat.S_IFLNK | 0o777)}))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_refused(tmp_path, kind):
    assert "no file, folder or link" in damage(tmp_path, tar({"a": b"a", "dev": entry(kind)}))


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_a_bomb_stops_at_the_limit(tmp_path, kind):
    content = MAKERS[kind]({"a": bytes(30_000_000)})
    assert len(content) < 100_000
    assert "more than 10 MB" in damage(tmp_path, content)


def test_a_bomb_of_headers_stops_at_the_limit(tmp_path):
    name = tarfile.TarInfo("x")
    name.pax_headers = {"comment": "x" * 30_000_000}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(name)
    assert "more than 10 MB" in damage(tmp_path, made.getvalue())


def test_a_bomb_of_entries_stops_at_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "ENTRIES", 100)
    assert "more than 100 entries" in damage(tmp_path, zipped({f"{number}": b"" for number in range(101)}))


def test_a_zip_with_a_password_is_a_sentence(tmp_path):
    content = bytearray(zipped({"a": b"secret"}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    assert "password" in damage(tmp_path, bytes(content))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_damaged_archive_is_a_sentence(tmp_path, kind):
    content = bytearray(MAKERS[kind]({"a": os.urandom(5000), "b": b"b"}))
    del content[len(content) // 3 : len(content) // 2]
    try:
        tree = unpacked(tmp_path, bytes(content))
    except Failed as failure:
        assert "unpack" in str(failure) or "leads out" in str(failure)
    else:
        assert list(tree.iterdir())  # a zip without its end is no zip: it stays a file


def test_a_file_and_a_folder_of_one_name_are_refused(tmp_path):
    assert "one name" in damage(tmp_path, zipped({"a": b"a", "a/b": b"b"}))


# What is built of it


def test_an_image_is_for_a_backend_with_containers(tmp_path):
    with pytest.raises(Failed, match="no containers, so it cannot run an image"):
        fetching.fetch(spec_of(tmp_path, {"kind": "image", "image": "x"}), tmp_path / "tree")
    with pytest.raises(Failed, match="does not know how to fetch"):
        fetching.fetch(spec_of(tmp_path, {"kind": "ipfs"}), tmp_path / "tree")


def test_a_list_is_kept_by_its_key_and_a_commit_by_itself(tmp_path):
    one, other = (cache.place_of(spec_of(tmp_path, listing(key=key))) for key in "ab")
    assert one != other
    assert cache.place_of(spec_of(tmp_path, listing(key="a"), commit="2002")) == one
    git = spec_of(tmp_path, {"kind": "git"}, commit="a" * 40)
    assert cache.place_of(git) == cache.place_of({name: git[name] for name in git if name != "content"})


def test_the_second_launch_of_a_record_asks_nobody(site, tmp_path, small, said):
    spec = spec_of(tmp_path, listing(row(site, "a.txt", b"a")))
    place = cache.build(spec)
    asked = len(site.requests)
    assert cache.found(spec) == place
    assert len(site.requests) == asked
    assert "Version 1001 of zenodo.1001 has been built before" in said()


def test_a_record_is_built_as_a_repository_is(site, tmp_path, small, said):
    content = zipped({"r/postBuild": b"#!/bin/sh\necho done > built\n", "r/requirements.txt": b"six\n"})
    place = cache.build(spec_of(tmp_path, listing(row(site, "r.zip", content), unpack=True)))
    assert (place / "tree/built").read_text() == "done\n"
    assert list(place.glob("venv/lib/*/site-packages/six.py"))
    assert not (place / "download").exists()


def test_what_needs_containers_is_refused_by_name_here_too(site, tmp_path, small):
    with pytest.raises(Failed, match=r"environment.yml asks for conda"):
        cache.build(spec_of(tmp_path, listing(row(site, "environment.yml", b"x"))))


def run_builder(spec: dict[str, Any]) -> list[dict[str, Any]]:
    file = Path(spec["home"]) / "spec.json"
    file.write_text(json.dumps(spec))
    done = subprocess.run([sys.executable, "-I", str(FOLDER), str(file)], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def resolved(text: str, **hosts: dict[str, str]) -> repos.Resolved:
    return repos.Resolver(settings.Settings(hosts=hosts)).resolve(repos.RepoSpec.parse(text))


def launched(found: repos.Resolved, folder: Path) -> Path:
    """From what the resolver found to the session's own copy, by the real builder."""
    began = time.monotonic()
    content = json.loads(json.dumps(found.content))
    lines = run_builder(spec_of(folder, content, commit=found.commit, repo_url=found.repo_url, title=found.slug))
    assert lines[-1]["phase"] == "built", lines
    server = lines[-1]["server"]
    assert server["cwd"] == str(folder / "home/repo")
    print(f"{found.spec_string}: {time.monotonic() - began:.1f} s")
    return folder / "home/repo"


def test_a_zip_on_zenodo_becomes_a_session_by_the_real_builder(tmp_path):
    with ZenodoDouble() as zenodo:
        zenodo.record("1001", {"repo-1.0.zip": zipped({"repo-1.0/index.ipynb": b"{}", "repo-1.0/data/x.csv": b"1"})})
        found = resolved("10.5281/zenodo.1001", zenodo={"api": zenodo.api, "url": zenodo.url})
        repo = launched(found, tmp_path)
    assert (repo / "index.ipynb").read_text() == "{}"
    assert (repo / "data/x.csv").read_text() == "1"


def test_the_files_of_an_osf_project_become_a_session_by_the_real_builder(tmp_path):
    with OsfDouble() as osf:
        osf.node("ezcuj", {"analysis.py": b"print(1)", "data/x.csv": b"1", "postBuild": b"#!/bin/sh\ntouch built\n"})
        repo = launched(resolved("https://osf.io/ezcuj/", osf={"api": osf.api, "url": osf.url}), tmp_path)
    assert sorted(path.name for path in repo.iterdir()) == ["analysis.py", "built", "data", "postBuild"]
