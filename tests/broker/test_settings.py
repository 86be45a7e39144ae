"""Wrong settings end the command with a sentence that names what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BACKEND = '[[backends]]\nname = "here"\nprovider = "local"\n'


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            'binder_backend = "their"',
            "A setting cannot be used: binder_backend 'their' is none of the backends: local.",
        ),
        ("rate_limits = 1", "A setting cannot be used: rate_limits: is no setting."),
        ('[hosts.gh]\nbanned_specs = ["*a"]', "“*a” is no regular expression: nothing to repeat at position 0."),
        ('[hosts.gh]\nbaned_specs = ["a"]', "A setting cannot be used: hosts.gh.baned_specs: is no setting."),
        ('[hosts.hg]\nbanned_specs = ["a"]', "A setting cannot be used: hosts.hg: the hosts are "),
        ('[[backends]]\nname = "here"\nprovider = "locl"', "names the provider “locl”, which is not installed."),
        (f'{BACKEND}open_to = "group lab"', "backends.0.open_to: is a list: write it in [ ], with commas between."),
        ('[[identities]]\nname = "k"\nclient_id = "a"', "A setting cannot be used: identities.0.issuer: is needed."),
        (f"{BACKEND}max_sesions = 1", "A setting cannot be used: backends.0.max_sesions: is no setting."),
        (
            f'{BACKEND}configuration = {{ engine = "dokcer" }}',
            "engine must be process, docker or podman, not 'dokcer'.",
        ),
        (
            f'{BACKEND}configuration = {{ engin = "docker" }}',
            "The backend “here” sets “engin”, which “local” does not have.",
        ),
        (
            'public_url = "https://hub.example"',
            "public_url needs a session_domain of its own, which serves nothing else",
        ),
        ("port =", "config.toml is no TOML: "),
    ],
)
def test_a_wrong_setting_is_told_in_a_sentence(tmp_path: Path, config: str, says: str) -> None:
    (tmp_path / "config.toml").write_text(config)
    ended = subprocess.run(
        [sys.executable, "-m", "broker.cli", "reap"],
        env={"ANYBINDER_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not ended.stderr.endswith("..\n")
