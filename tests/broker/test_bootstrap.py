"""What a machine is told at birth: valid, small, the same each time, and nothing in it that is worth stealing for long."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient

from broker import app, bootstrap, parcels
from providers import base
from tests import servers

SMALL = 6000  # bytes; EC2 takes 16,384, and Nova's base64 of it 65,535


@pytest.fixture
def order(bench):
    return bench.order(bench.advance(bench.request()))


@pytest.fixture
def user_data(bench, order) -> str:
    return bootstrap.boot(bench.at, order).user_data


def told(user_data: str) -> dict:
    files = {each["path"]: each for each in yaml.safe_load(user_data)["write_files"]}
    return json.loads(files["/run/anybinder/boot.json"]["content"])


def test_cloud_init_takes_it(user_data, tmp_path):
    found = servers.CLOUD_INIT.found()
    if found is None:
        pytest.skip("cloud-init is not installed here")
    (tmp_path / "user-data").write_text(user_data)
    command = [found[0], "schema", "--config-file", str(tmp_path / "user-data")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "Valid" in checked.stdout


def test_it_is_small(user_data):
    assert len(user_data.encode()) < SMALL < base.Provider.user_data_most


def test_it_is_the_same_to_the_letter_for_one_order(bench, order, clock, user_data):
    clock.move(minutes=7)
    assert bootstrap.boot(bench.at, order).user_data == user_data


def test_the_switch_is_armed_before_anything_else_and_after_until(order, user_data):
    first = yaml.safe_load(user_data)["bootcmd"][0]
    off = int((order.until + bootstrap.GRACE).timestamp())
    assert user_data.index("bootcmd:") < user_data.index("write_files:")
    assert f"--on-calendar=@{off}" in first
    assert f"-lt {off}" in first, "where there is no systemd"
    assert f"--on-active={off - int(order.created_at.timestamp())}" in first, "whatever its clock says"


def test_a_machine_that_starts_again_goes_off_at_once(user_data):
    first = yaml.safe_load(user_data)["bootcmd"][0]
    assert "if [ -e /var/lib/anybinder/born ]; then poweroff -f; fi" in first


def test_only_root_reads_what_is_written(user_data):
    files = yaml.safe_load(user_data)["write_files"]
    assert {each["path"]: each["permissions"] for each in files}["/run/anybinder/boot.json"] == "0600"
    assert all(each["permissions"].endswith("00") for each in files)


def test_its_only_secret_is_the_token_that_enrols_once(bench, order, user_data):
    assert told(user_data)["token"] == bootstrap.enrolment_token(bench.at, order.id)
    lasting = [bench.at.keys.token(use, order.id) for use in ("tunnel", "server")]
    lasting += [bench.at.keys.token("launch", order.launch_id), bench.at.keys.derive("broker-id").hex()]
    assert [secret for secret in lasting if secret in user_data] == []


def test_every_shell_and_python_program_in_it_can_be_read(user_data):
    cloud = yaml.safe_load(user_data)
    shell = [*cloud["bootcmd"], *cloud["runcmd"]]
    for each in cloud["write_files"]:
        if each["path"].endswith(".py"):
            compile(each["content"], each["path"], "exec")
        elif not each["path"].endswith(".json"):
            shell.append(each["content"])
    for script in shell:
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)


# --- what it is told to fetch ---------------------------------------------------------------------------------------


@pytest.fixture
def http(bench):
    with TestClient(app.create(bench.at), base_url=f"http://127.0.0.1:{bench.at.settings.port}") as client:
        yield client


def test_each_file_is_served_by_its_digest_for_ever(http, user_data):
    for name, digest in told(user_data)["files"].items():
        answer = http.get(f"/agent/files/{digest}")
        assert answer.status_code == 200, name
        assert hashlib.sha256(answer.content).hexdigest() == digest, name
        assert "immutable" in answer.headers["cache-control"]


def test_a_digest_that_is_not_ours_is_a_sentence(http):
    answer = http.get(f"/agent/files/{'0' * 64}")
    assert answer.status_code == 404
    assert "no file of this digest" in answer.json()["detail"]


def test_the_builder_is_whole_and_has_nothing_but_its_modules():
    packed = parcels.named()["builder.tar.gz"].content
    assert packed is not None
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        names = archive.getnames()
    here = Path(parcels.__file__).parent
    ours = ["broker/__init__.py", "broker/bringing.py", "broker/machine.py"]
    modules = sorted(f"broker/environments/{path.name}" for path in here.glob("environments/*.py"))
    assert names == [*ours, *modules]
