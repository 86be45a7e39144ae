"""`anybinder keycloak init` against a real Keycloak."""

from __future__ import annotations

import tomllib

import pytest

from tests.keycloak.conftest import init
from tests.servers import keycloak

pytestmark = pytest.mark.timeout(600)  # the first test waits for Keycloak to be fetched, built and started

BROKER = "https://binder.example"


@pytest.fixture(scope="module")
def set_up(keycloak_server, tmp_path_factory):
    """What the first run said, and where it wrote the settings."""
    into = tmp_path_factory.mktemp("init") / "keycloak.toml"
    said = init(keycloak_server, "--realm", "first", "--broker", BROKER, "--into", str(into))
    return keycloak_server, said, into


def test_a_dry_run_changes_nothing(keycloak_server):
    said = init(keycloak_server, "--realm", "never", "--broker", BROKER, "--dry-run").stderr
    assert "made the realm never" in said
    assert "Nothing was." in said
    assert "never" not in [realm["realm"] for realm in keycloak_server.admin().get_realms()]


def test_the_first_run_says_what_it_made_and_the_second_finds_nothing_to_do(set_up):
    server, said, _ = set_up
    assert "made the client anybinder" in said.stderr
    again = init(server, "--realm", "first", "--broker", BROKER)
    assert again.stderr == "Nothing to change.\n"
    assert again.stdout == said.stdout


def test_the_secret_is_written_for_its_owner_only_and_never_said(set_up):
    _, said, into = set_up
    (identity,) = tomllib.loads(into.read_text())["identities"]
    assert into.stat().st_mode & 0o777 == 0o600
    assert len(identity["client_secret"]) >= 20
    assert identity["client_secret"] not in said.stdout + said.stderr
    assert identity["issuer"].endswith("/realms/first")


def test_the_secret_is_printed_to_whoever_asks(set_up):
    server, _, into = set_up
    said = init(server, "--realm", "first", "--broker", BROKER, "--show-secret").stdout
    assert tomllib.loads(said) == tomllib.loads(into.read_text())


def test_a_file_that_is_there_is_left_alone(set_up):
    server, _, into = set_up
    before = into.read_text()
    said = init(server, "--realm", "first", "--broker", BROKER, "--into", str(into), code=1).stderr
    assert "left as it is" in said
    assert into.read_text() == before


def test_the_client_can_do_what_the_broker_does_and_no_more(set_up):
    admin = set_up[0].admin("first")
    client = admin.get_client(admin.get_client_id("anybinder"))
    assert client["redirectUris"] == [f"{BROKER}/login/keycloak/callback"]
    assert client["attributes"]["pkce.code.challenge.method"] == "S256"
    assert client["attributes"]["backchannel.logout.url"] == f"{BROKER}/login/keycloak/backchannel"
    assert client["attributes"]["oauth2.device.authorization.grant.enabled"] == "false"
    switched_on = {"standardFlowEnabled", "enabled"}
    flows = ("standardFlowEnabled", "implicitFlowEnabled", "directAccessGrantsEnabled", "serviceAccountsEnabled",
             "publicClient", "fullScopeAllowed", "enabled")  # fmt: skip
    assert {name for name in flows if client[name]} == switched_on
    assert "offline_access" not in client["optionalClientScopes"]


def test_people_cannot_make_themselves_members(set_up):
    profile = set_up[0].admin("first").get_realm_users_profile()
    ours = {each["name"]: each for each in profile["attributes"] if each["name"].startswith("eduperson_")}
    assert set(ours) == {"eduperson_scoped_affiliation", "eduperson_entitlement"}
    assert {tuple(each["permissions"]["edit"]) for each in ours.values()} == {("admin",)}


def test_providers_wait_switched_off_and_none_is_believed_about_e_mail(set_up):
    admin = set_up[0].admin("first")
    found = {each["alias"]: each for each in admin.get_idps()}
    assert set(found) == {"github", "gitlab", "orcid", "cilogon", "egi"}
    assert not any(each["enabled"] or each["trustEmail"] for each in found.values())
    assert {alias for alias, each in found.items() if each["storeToken"]} == {"github", "gitlab"}
    steps = admin.get_authentication_flow_executions("anybinder first login")
    by_mail = [step["requirement"] for step in steps if step.get("providerId") == "idp-email-verification"]
    assert by_mail == ["DISABLED"]
    assert {each["firstBrokerLoginFlowAlias"] for each in found.values()} == {"anybinder first login"}


def test_a_provider_is_switched_on_once_its_client_is_known_and_a_new_secret_is_noticed(set_up, tmp_path):
    server, _, _ = set_up
    file = tmp_path / "upstreams.toml"
    file.touch(mode=0o600)
    words = ("--realm", "first", "--broker", BROKER, "--upstreams", str(file))
    file.write_text('[github]\nclient_id = "one"\nclient_secret = "first-secret"\n')
    said = init(server, *words)
    assert "the identity provider github: enabled, clientId" in said.stderr
    assert 'linked = { gh = "github" }' in said.stdout
    assert init(server, *words).stderr == "Nothing to change.\n"
    file.write_text('[github]\nclient_id = "one"\nclient_secret = "second-secret"\n')
    assert init(server, *words).stderr == "· the identity provider github: the secret\n"
    found = server.admin("first").get_idp("github")
    assert (found["enabled"], found["config"]["clientId"]) == (True, "one")


def test_what_an_operator_has_added_stays(set_up):
    server, _, _ = set_up
    admin = server.admin("first")
    client = admin.get_client(admin.get_client_id("anybinder"))
    admin.update_client(client["id"], {"redirectUris": [*client["redirectUris"], "https://other.example/back"]})
    assert init(server, "--realm", "first", "--broker", BROKER).stderr == "Nothing to change.\n"


def test_what_somebody_has_weakened_is_put_right(set_up):
    server, _, _ = set_up
    admin = server.admin("first")
    client = admin.get_client(admin.get_client_id("anybinder"))
    admin.update_client(client["id"], {"directAccessGrantsEnabled": True})
    admin.update_idp("orcid", {**admin.get_idp("orcid"), "trustEmail": True})
    said = init(server, "--realm", "first", "--broker", BROKER).stderr
    assert said.splitlines() == [
        "· the client anybinder: directAccessGrantsEnabled",
        "· the identity provider orcid: trustEmail",
    ]


def test_a_wrong_password_and_an_address_in_clear_text_are_told_in_a_sentence(keycloak_server):
    said = init(keycloak_server, "--broker", BROKER, code=1, ANYBINDER_KEYCLOAK_PASSWORD="no").stderr
    assert "does not know this administrator" in said
    elsewhere = keycloak.Keycloak(url="http://sso.example", password="x")
    assert "https://" in init(elsewhere, "--broker", BROKER, code=1).stderr


def test_a_file_of_secrets_that_others_can_read_is_refused(keycloak_server, tmp_path):
    file = tmp_path / "upstreams.toml"
    file.write_text('[github]\nclient_id = "one"\nclient_secret = "first-secret"\n')
    file.chmod(0o644)
    said = init(keycloak_server, "--broker", BROKER, "--upstreams", str(file), code=1).stderr
    assert "chmod 600" in said
    assert "first-secret" not in said
