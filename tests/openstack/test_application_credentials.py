"""Application credentials, against a real Keystone: what is let in, for how long, and what is said where it is not."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from broker import connections, identity, people
from broker.models import Connection, Use
from providers import base
from providers.errors import BadCredential
from providers.openstack import OpenStackProvider, needs
from tests.openstack.conftest import Account, soon
from tests.servers import keystone
from tests.servers.keystone import ApplicationCredential, Keystone
from tests.servers.openstack import packages
from tests.waiting import until

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def provider(cloud: Keystone) -> OpenStackProvider:
    return OpenStackProvider({"auth_url": cloud.url, "region": keystone.REGION})


def connection(credential: ApplicationCredential, ends: str = "", secret: str = "") -> base.Connection:
    told = {"id": credential.id, "ends": ends}
    return base.Connection(kind="application_credential", settings=told, secret=secret or credential.secret)


def instant(told: str) -> dt.datetime:
    return dt.datetime.fromisoformat(told).replace(tzinfo=dt.UTC)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


# --- who, and until when --------------------------------------------------------------------------------------------


def test_it_says_who_it_is_and_lasts_until_the_credential_ends(provider, ada):
    ends = soon(days=30)
    found = provider.sign_in(connection(ada.credential(expires_at=ends, access_rules=needs.rules())), None)
    assert found.who.startswith(f"{ada.user.name} in the project paleo-") and found.who.endswith("(member, reader)")
    assert found.reaches == instant(ends)
    assert found.expires_at is not None and HOUR / 2 < found.expires_at - now() <= HOUR


def test_one_that_never_ends_reaches_without_an_end(provider, ada):
    assert provider.sign_in(connection(ada.credential()), None).reaches is None


def test_where_its_rules_hide_the_end_no_more_is_relied_on_than_its_token(provider, ada):
    rules = [{"service": "compute", "method": "GET", "path": "/v2.1/servers/detail"}]
    found = provider.sign_in(connection(ada.credential(expires_at=soon(days=30), access_rules=rules)), None)
    assert found.reaches == found.expires_at


def test_or_the_date_that_the_person_typed(provider, ada):
    rules = [{"service": "compute", "method": "GET", "path": "/v2.1/servers/detail"}]
    ends = soon(days=30)
    found = provider.sign_in(connection(ada.credential(expires_at=ends, access_rules=rules), ends=ends), None)
    assert found.reaches == instant(ends)


def test_the_clouds_word_counts_more_than_a_typed_date(provider, ada):
    ends = soon(days=2)
    made = ada.credential(expires_at=ends, access_rules=needs.rules())
    assert provider.sign_in(connection(made, ends=soon(days=300)), None).reaches == instant(ends)


def test_a_token_ends_with_the_credential(provider, ada):
    ends = soon(minutes=20)
    assert provider.sign_in(connection(ada.credential(expires_at=ends)), None).expires_at == instant(ends)


# --- refused, and why -----------------------------------------------------------------------------------------------


def refusal(provider: OpenStackProvider, told: base.Connection) -> str:
    with pytest.raises(BadCredential) as refused:
        provider.sign_in(told, None)
    return str(refused.value)


def test_a_wrong_secret(provider, ada):
    assert "the secret is wrong" in refusal(provider, connection(ada.credential(), secret="not-the-secret"))


def test_an_id_that_never_was(provider, ada):
    unknown = ApplicationCredential(id="0" * 32, secret=ada.credential().secret)
    assert "knows no application credential with this id" in refusal(provider, connection(unknown))


def test_one_that_was_deleted(provider, ada, cloud):
    made = ada.credential()
    cloud.delete(ada.user, ada.project, made)
    assert "it was deleted there" in refusal(provider, connection(made))


def test_one_that_has_ended(provider, ada):
    ends = (now() + dt.timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%S.%f")
    made = ada.credential(expires_at=ends)
    until(lambda: now() > instant(ends) + dt.timedelta(seconds=1), what="it has ended")
    assert "the credential has expired" in refusal(provider, connection(made))
    assert refusal(provider, connection(made, ends=ends)).startswith("The application credential ended on ")


def test_one_whose_maker_has_no_role_any_more(provider, ada, cloud):
    made = ada.credential()
    cloud.withdraw(ada.user, ada.project, "member")
    assert "you have no role in its project any more" in refusal(provider, connection(made))


def test_one_whose_maker_was_disabled(provider, ada, cloud):
    made = ada.credential()
    cloud.ask("PATCH", f"/users/{ada.user.id}", {"user": {"enabled": False}})
    assert "your account there was disabled" in refusal(provider, connection(made))


# --- permission by permission ---------------------------------------------------------------------------------------


def findings(
    provider: OpenStackProvider, told: base.Connection, purpose: base.Purpose = base.Purpose.LAUNCH
) -> dict[str, base.Permission]:
    asked = base.Connection(kind=told.kind, settings=told.settings, secret=told.secret, purpose=purpose)
    return {each.name: each for each in provider.check(asked, provider.sign_in(asked, None))}


def test_with_the_rules_of_the_guide_nothing_is_missing_and_nothing_is_bought(provider, ada):
    told = connection(ada.credential(access_rules=needs.rules(), expires_at=soon(days=1)))
    found = findings(provider, told)
    assert {name: each.works for name, each in found.items()} == {
        "identity POST /v3/auth/tokens": True,
        "identity GET /v3/users/{user_id}/application_credentials/{application_credential_id}": True,
        "compute GET /v2.1/servers/detail": True,
        "compute GET /v2.1/flavors/detail": True,
        "compute GET /v2.1/limits": True,
        "image GET /v2/images": True,
        "image GET /v2/images/{image_id}": None,
        "network GET /v2.0/networks": True,
        "network GET /v2.0/security-groups": True,
        "network GET /v2.0/ports": True,
        "image POST /v2/images": None,
        "image PATCH /v2/images/{image_id}": None,
        "network POST /v2.0/security-groups": None,
        "compute POST /v2.1/servers": None,
        "compute POST /v2.1/servers/{server_id}/action": None,
        "compute DELETE /v2.1/servers/{server_id}": None,
        "network PUT /v2.0/ports/{port_id}": None,
        "network DELETE /v2.0/security-groups/{security_group_id}": None,
        "image DELETE /v2/images/{image_id}": None,
    }
    assert [each.fix for each in found.values() if each.fix] == []
    reaping = findings(provider, told, base.Purpose.REAP)
    assert "compute DELETE /v2.1/servers/{server_id}" in reaping
    assert not [
        name for name in reaping if name.endswith(("POST /v2.1/servers", "POST /v2/images")) or "flavors" in name
    ]


def test_the_fixes_lead_from_too_narrow_to_just_right(provider, ada):
    rules = [{"service": "compute", "method": "GET", "path": "/v2.1/servers/detail"}]
    found = findings(provider, connection(ada.credential(access_rules=rules)))
    missing = [name for name, each in found.items() if each.works is False]
    assert "compute POST /v2.1/servers" in missing and "compute GET /v2.1/flavors/detail" in missing
    assert found["compute GET /v2.1/servers/detail"].works is True
    rules += [json.loads(each.fix.partition(": ")[2]) for each in found.values() if each.fix]
    found = findings(provider, connection(ada.credential(access_rules=rules)))
    assert [name for name, each in found.items() if each.works is False or each.fix] == []
    assert sorted(map(str, rules)) == sorted(map(str, needs.rules()))


def test_rules_are_wildcards_as_the_clouds_services_read_them(provider, ada):
    rules = [
        {"service": "compute", "method": "GET", "path": "/v2.1/**"},
        {"service": "compute", "method": "POST", "path": "/v2.1/servers"},
        {"service": "compute", "method": "DELETE", "path": "/v2.1/servers/*"},
    ]
    found = findings(provider, connection(ada.credential(access_rules=rules)))
    missing = [name for name, each in found.items() if each.works is False]
    assert {name.split()[0] for name in missing} == {"image", "network"}


def test_a_credential_without_rules_is_asked_for_what_it_may(provider, ada):
    found = findings(provider, connection(ada.credential()))
    assert {each.works for each in found.values()} == {True, None}


def test_somebody_who_may_only_look_is_told_which_role_to_ask_for(provider, cloud):
    reader = Account(cloud, role="reader")
    found = findings(provider, connection(reader.credential()))
    assert "“member”" in found["compute POST /v2.1/servers"].fix
    assert found["compute GET /v2.1/flavors/detail"].works is True


def test_a_cloud_without_machines_in_this_region_says_so(cloud, ada):
    elsewhere = OpenStackProvider({"auth_url": cloud.url, "region": "Elsewhere"})
    found = findings(elsewhere, connection(ada.credential()))
    missing = [each for each in found.values() if each.works is False]
    assert missing and all("no service “compute” in the region Elsewhere" in each.fix for each in missing)


def test_the_cloud_itself_enforces_what_check_says(cloud, ada, provider):
    """Not ours but the cloud's own middleware and Keystone: so the table above is worth something."""
    made = ada.credential(access_rules=needs.rules())
    token = provider.sign_in(connection(made), None).secret["token"]

    def asked(method: str, path: str) -> int:
        headers = {"X-Auth-Token": token}
        return httpx.request(method, f"{cloud.root}{path}", headers=headers, trust_env=False, timeout=20).status_code

    assert asked("GET", "/v2.1/flavors/detail") == 200
    assert asked("DELETE", f"/v2.1/servers/{'0' * 32}") == 404  # let through: there is no such machine
    assert asked("GET", "/v2.1/os-keypairs") == 401
    assert asked("GET", "/v3/auth/projects") == 401
    own = f"/v3/users/{ada.user.id}/application_credentials/{made.id}"
    assert asked("GET", own) == 200
    assert asked("DELETE", own) == 401  # it cannot be ended by whoever holds it: the guide says who can


# --- the script, as a person runs it --------------------------------------------------------------------------------


@pytest.fixture
def openstack(cloud: Keystone, ada: Account, tmp_path: Path) -> Callable[[str], str]:
    """Runs a script with the published command `openstack`, signed in as Ada to her project."""
    own = {
        "PATH": f"{packages.environment().parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "OS_AUTH_URL": cloud.url,
        "OS_IDENTITY_API_VERSION": "3",
        "OS_USERNAME": ada.user.name,
        "OS_PASSWORD": ada.user.password,
        "OS_PROJECT_ID": ada.project,
        "OS_USER_DOMAIN_ID": "default",
        "PYTHONWARNINGS": "ignore",
    }

    def run(script: str) -> str:
        command = ["sh", "-eu", "-c", script]
        ended = subprocess.run(command, env=own, capture_output=True, text=True, timeout=90, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    return run


def printed(told: str) -> dict[str, str]:
    """What the script prints for people to copy, by the form's own words."""
    return dict(line.split(": ", 1) for line in told.splitlines() if ": " in line)


def form(told: dict[str, str]) -> dict[str, str]:
    return {"id": told["Id"], "secret": told["Secret"], "reap_id": told["Second id"]}


def test_the_script_makes_both_credentials_and_running_it_again_renews_them(campus, openstack):
    trust = identity.trust(campus.at, "x" * 26)
    guide = campus.backend.provider.guide("application_credential", trust, {})
    first, second = (form(printed(openstack(guide.script))) for _ in range(2))
    row = campus.check(campus.connect("application_credential", **second))
    assert row.works and row.trouble == ""
    assert row.ends_at is not None and abs(row.ends_at - now() - dt.timedelta(days=90)) < HOUR
    ended = campus.check(campus.connect("application_credential", **first))
    assert ended.works is False and "it was deleted there" in ended.trouble
    assert len(openstack("openstack application credential list -f value -c Name").splitlines()) == 2
    command = next(step for step in guide.revoke if "with the command" in step).partition(": ")[2].strip("`.")
    openstack(command)
    gone = campus.check(campus.connect("application_credential", **second))
    assert gone.works is False and "it was deleted there" in gone.trouble


# --- through the broker ---------------------------------------------------------------------------------------------


def test_connected_checked_used_and_disconnected(campus, ada):
    ends = soon(days=10)
    made = ada.credential(access_rules=needs.rules(), expires_at=ends)
    row = campus.check(campus.connect("application_credential", id=made.id, secret=made.secret))
    assert row.works and row.who.startswith(ada.user.name) and row.ends_at == instant(ends)
    assert {each["purpose"] for each in row.findings} == {"launch", "reap"}
    assert campus.account(row, base.Purpose.REAP).reaches == instant(ends)
    gone = connections.disconnect(campus.at, people.LOCAL, row.id)
    with campus.at.db.reading() as session:
        found = session.get(Connection, gone.id)
        assert found is not None and found.secret is None and found.erased_at
        assert [use.what for use in session.scalars(sa.select(Use).order_by(Use.id))] == ["check", "check", "reap"]


def test_a_refusal_is_kept_for_the_person_to_read(campus, ada):
    made = ada.credential()
    row = campus.check(campus.connect("application_credential", id=made.id, secret="wrong-secret"))
    assert row.works is False and "the secret is wrong" in row.trouble


def test_a_credential_that_is_too_narrow_does_not_work_and_what_is_missing_is_named(campus, ada):
    made = ada.credential(access_rules=[{"service": "compute", "method": "GET", "path": "/v2.1/servers/detail"}])
    row = campus.check(campus.connect("application_credential", id=made.id, secret=made.secret))
    assert row.works is False and "compute POST /v2.1/servers" in row.trouble
