"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CLONE = Path(__file__).resolve().parent.parent
PACKAGES = ("broker", "federation", "providers")
TOP = {*PACKAGES, "tests", "deploy", "docs", "README.md", "pyproject.toml", "LICENSE"}
LINES_MOST = 500
LONGER = {"broker/agent.py"}  # one standard-library file by design: it is sent to machines that have nothing else
PROJECT = tomllib.loads((CLONE / "pyproject.toml").read_text())
LOCKS = ("deploy/requirements.lock", "deploy/requirements-test.lock")
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
REGISTRIES = ("pypi.{org}", "python{hosted}", "registry.npm{js}", "crates.{io}", "proxy.golang.{org}", "maven.{org}",
              "maven.apache.{org}", "deb.debian.{org}", "security.debian.{org}", "security.ubuntu.{com}")  # fmt: skip
MACHINE_PATHS = ("/work/{main}", "/work/{shared}", "/work/{.}")


def tracked() -> list[Path]:
    """Files that git knows or would take: a file that is not ignored is meant to be committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=CLONE, capture_output=True, text=True, check=True)
    return [CLONE / line for line in listed.stdout.splitlines() if (CLONE / line).is_file()]


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (CLONE / package).rglob("*.py")


def name(path: Path) -> str:
    return str(path.relative_to(CLONE))


def test_the_top_level_holds_what_the_design_names_and_no_more():
    found = {path.relative_to(CLONE).parts[0] for path in tracked()}
    assert {entry for entry in found if not entry.startswith(".")} == TOP


def test_no_file_outgrows_its_noun():
    long = {name(path): lines for path in sources() if (lines := len(path.read_text().splitlines())) > LINES_MOST}
    assert {path: lines for path, lines in long.items() if path not in LONGER} == {}, "make a folder of the same name"


def test_what_other_modules_call_says_what_they_may_rely_on():
    assert sorted(undocumented()) == []


def undocumented() -> Iterator[str]:
    """Classes and functions without a docstring that another module uses as `module.name` or imports."""
    trees = {path: ast.parse(path.read_text()) for path in sources()}
    used = {word for path, tree in trees.items() for word in words_used(path, tree)}
    for path, tree in trees.items():
        for node in tree.body:
            if is_silent(node) and (module_of(path), node.name) in used:
                yield f"{name(path)}:{node.lineno} {node.name}"


def is_silent(node: ast.stmt) -> bool:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return isinstance(node, kinds) and not ast.get_docstring(node)


def words_used(path: Path, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Module and name of everything this one takes from another."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id != module_of(path):
            yield node.value.id, node.attr
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module.rpartition(".")[2], each.name) for each in node.names)


def module_of(path: Path) -> str:
    return path.parent.name if path.stem == "__init__" else path.stem


def test_every_driver_is_kept_apart_from_the_others_and_from_the_broker():
    drivers = {entry.partition(":")[0] for entry in PROJECT["project"]["entry-points"]["anybinder.providers"].values()}
    contracts = {contract["name"]: contract for contract in PROJECT["tool"]["importlinter"]["contracts"]}
    assert set(contracts["No driver knows another"]["modules"]) == drivers
    for title in ("Federation knows the providers' vocabulary and no cloud",
                  "No caller knows the driver: the broker finds providers by entry point"):  # fmt: skip
        assert drivers <= set(contracts[title]["forbidden_modules"]), title


def pins(lock: str) -> dict[str, tuple[str, str]]:
    """Name, version and the rest of each entry."""
    return {canonicalize_name(found[1]): (found[2], found[3]) for found in PIN.finditer((CLONE / lock).read_text())}


def declared(lock: str) -> list[Requirement]:
    """What pyproject.toml asks of this lock file."""
    project = PROJECT["project"]
    asked = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    if lock.endswith("-test.lock"):
        asked += [one for extra in project["optional-dependencies"].values() for one in extra]
        asked += PROJECT["dependency-groups"]["test"]
    return [each for each in map(Requirement, asked) if canonicalize_name(each.name) != "anybinder"]


@pytest.mark.parametrize("lock", [*LOCKS, "tests/servers/openstack/packages.lock"])
def test_a_lock_file_holds_hashes_and_no_addresses(lock):
    assert "--hash=sha256:" in (CLONE / lock).read_text()
    assert [each for each, (_, rest) in pins(lock).items() if "--hash=sha256:" not in rest] == []
    lines = (CLONE / lock).read_text().splitlines()
    assert [line for line in lines if "://" in line or " @ " in line or line.startswith("-")] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_satisfies_the_project(lock):
    locked = pins(lock)
    missing = [str(each) for each in declared(lock) if canonicalize_name(each.name) not in locked]
    assert missing == [], "run deploy/lock"
    wrong = [str(each) for each in declared(lock) if locked[canonicalize_name(each.name)][0] not in each.specifier]
    assert wrong == [], "run deploy/lock"


def test_an_environment_for_tests_is_one_for_running_too():
    running, testing = (pins(lock) for lock in LOCKS)
    assert {each: pin[0] for each, pin in running.items()}.items() <= {
        each: pin[0] for each, pin in testing.items()
    }.items()


def test_no_file_names_a_package_registry_or_the_machine_it_was_written_on():
    words = re.compile(
        "|".join(re.escape(word.replace("{", "").replace("}", "")) for word in REGISTRIES + MACHINE_PATHS)
    )
    found = {}
    for path in tracked():
        if match := words.search(path.read_bytes().decode(errors="ignore")):
            found[name(path)] = match.group()
    assert found == {}


def test_every_suite_of_tests_is_one_that_tests_run_knows():
    from tests import suites

    known = {suite.name for suite in suites.SUITES}
    assert {"unit", "journeys", "browser", "crashes", "bench"} <= known
    assert "tests/test_house.py" in suites.unit_tests()


def test_the_license_is_the_one_of_the_field():
    text = (CLONE / "LICENSE").read_text()
    assert text.startswith("BSD 3-Clause License")
    assert PROJECT["project"]["license"] == "BSD-3-Clause"
