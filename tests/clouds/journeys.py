"""One launch, from a click to a cell's output to an empty account, test after test: the same for every cloud.

Mixed in beside a module's own `world`; the tests run in this order, and the last one ends the session.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.clouds import launching, secrets
from tests.clouds.launching import Session
from tests.clouds.world import World, picture
from tests.waiting import until


class Journey:
    """What is asked of every cloud."""

    token_of_its_own = ""
    """An attempt of `secrets.TRIES` that root gets an answer to."""

    def test_a_cell_runs_on_the_machine_that_was_bought(self, world: World, session: Session) -> None:
        launching.run_a_cell(session.page)
        picture(session.page, f"{world.pictures}-3-running")

    @pytest.mark.parametrize("attempt", secrets.TRIES)
    def test_code_of_the_session_reaches_no_metadata(self, session: Session, attempt: str) -> None:
        assert session.machine.inside(secrets.TRIES[attempt], user=secrets.USER, check=False)[-3:] == "000"

    def test_root_reaches_the_metadata_that_the_session_does_not(self, session: Session) -> None:
        assert session.machine.inside(secrets.TRIES[self.token_of_its_own]) == "200"

    @pytest.mark.parametrize("path", secrets.FILES)
    def test_code_of_the_session_reads_nothing_of_what_the_machine_was_told(self, session: Session, path: str) -> None:
        refused = session.machine.inside(f"cat {path} >/dev/null", user=secrets.USER, check=False)
        assert "Permission denied" in refused or "No such file" in refused, refused or f"{path} was read"

    def test_the_enrolment_token_is_nowhere_that_the_session_can_look(self, session: Session) -> None:
        token = secrets.enrolment_token(session.machine)
        assert token in session.machine.inside("cat /var/lib/cloud/instance/user-data.txt")
        assert secrets.searched(session.machine, token) == set()

    def test_code_of_the_session_looks_into_no_process_but_its_own(self, session: Session) -> None:
        """Where the agent keeps the session's secret, and what the machine would delete itself with."""
        agents = session.machine.inside("pgrep --full '[a]gent.py|[m]achine.py'").split()
        assert len(agents) >= 2
        for pid in agents:
            for part in ("environ", "mem", "fd/0", "maps"):
                said = session.machine.inside(f"head --bytes=1 /proc/{pid}/{part}", user=secrets.USER, check=False)
                assert "Permission denied" in said or "No such process" in said, f"{part}: {said!r}"

    def test_code_of_the_session_cannot_become_root(self, session: Session) -> None:
        command = "sudo --non-interactive id -u; su -c 'id -u' </dev/null; systemctl poweroff"
        said = session.machine.inside(command, user=secrets.USER, check=False)
        assert "0" not in said.splitlines(), said
        assert session.machine.running

    def test_what_was_made_there_comes_home_and_nothing_that_its_user_may_not_read(
        self, session: Session, tmp_path: Path
    ) -> None:
        (repo,) = session.machine.inside("dirname $(find / -xdev -path '*/repo/README.md')").splitlines()
        session.machine.inside(f"echo mine > {repo}/made-there; echo root > {repo}/closed; chmod 600 {repo}/closed")
        page = session.page.context.new_page()
        page.goto(session.progress)
        with page.expect_download() as begun:
            page.get_by_role("link", name="Download my work").click()
        begun.value.save_as(tmp_path / "home.zip")
        page.close()
        with zipfile.ZipFile(tmp_path / "home.zip") as found:
            held = {name.partition("/")[2]: found.read(name) for name in found.namelist()}
        assert held["made-there"] == b"mine\n"
        assert b"# Squares" in held["README.md"]
        assert "closed" not in held
        assert b"closed: is left out: it cannot be read" in held["ANYBINDER-LEFT-OUT.txt"]

    def test_stopped_is_an_empty_account(self, world: World, session: Session) -> None:
        """Every request on the way was one that the vendor's own models know."""
        launching.stop(session.page, session.progress)
        until(lambda: world.left() == [], seconds=180, what="nothing is left in the account")
        expect(session.page.get_by_text("Nothing of it is left").first).to_be_attached(timeout=60_000)
        picture(session.page, f"{world.pictures}-4-stopped")
        launching.fill(world, session.page)
        picture(session.page, f"{world.pictures}-1-launch")  # now the place has a price: what was last bought there
        assert world.complaints == []
        assert not world.invalid(), "\n".join(world.invalid())
