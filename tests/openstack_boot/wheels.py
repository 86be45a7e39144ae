"""Wheels with a name and nothing else, for what every environment has: the guest's image brings them, as an operator's could.

Installing JupyterLab in a machine that is emulated takes minutes and shows nothing that other suites do not show.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from packaging.requirements import Requirement

from broker.environments.installing import BASE

PLACE = "/usr/local/share/wheels"
SETTINGS = f'no-index = true\nfind-links = ["{PLACE}"]\n'
"""For uv: there is nothing else."""
VERSIONS = range(1, 100)


def make(folder: Path) -> None:
    """One for each of these packages, of a version that is wanted."""
    folder.mkdir(parents=True)
    for wanted in map(Requirement, BASE):
        version = next(f"{each}.7" for each in VERSIONS if wanted.specifier.contains(f"{each}.7"))
        wheel(folder, wanted.name, version)


def wheel(folder: Path, name: str, version: str) -> None:
    told = f"{name}-{version}.dist-info"
    files = {
        f"{told}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{told}/WHEEL": "Wheel-Version: 1.0\nGenerator: anybinder\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in (*files, f"{told}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for file, text in {**files, f"{told}/RECORD": record}.items():
            archive.writestr(file, text)
