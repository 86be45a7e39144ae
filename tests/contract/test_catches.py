"""The contract is worth what it catches: each driver that is broken on purpose fails the promise it breaks."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import pytest

from providers.contract import ProviderContract
from tests.contract.broken import BROKEN

pytestmark = pytest.mark.timeout(300)  # the first one waits for all of them: half a minute on an idle computer
SUITES = Path(__file__).with_name("broken_suites.py")


@pytest.fixture(scope="module")
def failures(tmp_path_factory) -> dict[str, set[str]]:
    """Driver to the promises that it failed, each asked only for those that it is known to break."""
    report = tmp_path_factory.mktemp("broken") / "report.xml"
    tests = [f"{SUITES}::Test{broken.__name__}::test_{promise}" for broken in BROKEN for promise in broken.caught_by]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=SUITES.parent.parent.parent)
    assert ran.returncode == 1, ran.stdout[-3000:] + ran.stderr[-3000:]
    failed = defaultdict(set)
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("failure") is not None:
            driver = case.get("classname").rpartition(".Test")[2]
            failed[driver].add(case.get("name").partition("[")[0].removeprefix("test_"))
    return failed


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_driver_is_caught_by_the_promise_it_breaks(broken, failures):
    assert failures[broken.__name__] == set(broken.caught_by)


def test_every_promise_is_broken_by_somebody():
    """But for these: a driver cannot break them."""
    beyond_drivers = {"an_order_shows_no_token"}  # what orders show of themselves is said in `providers/base.py`
    promises = {name.removeprefix("test_") for name in dir(ProviderContract) if name.startswith("test_")}
    assert promises - {promise for broken in BROKEN for promise in broken.caught_by} == beyond_drivers


def test_every_promise_that_is_named_is_in_the_suite():
    assert not [p for broken in BROKEN for p in broken.caught_by if not hasattr(ProviderContract, f"test_{p}")]
