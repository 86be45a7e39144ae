"""The fake cloud by the other kinds of connection: what each kind asks for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from providers.base import Connection
from providers.errors import BadCredential


def test_a_kind_that_it_is_not_configured_for_lets_nobody_in(cloud):
    provider = cloud.provider(kinds="keyless")
    assert [kind.name for kind in provider.kinds] == ["keyless"]
    for connection in (Connection(kind="none"), Connection(kind="kept", secret="the-fake-key")):
        with pytest.raises(BadCredential):
            provider.sign_in(connection, "a-token")


def test_a_credential_with_an_end_reaches_until_then(cloud):
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    connection = Connection(kind="delegated", settings={"until": until.isoformat()}, secret="the-fake-key")
    found = cloud.provider().sign_in(connection, None)
    assert found.reaches == until
    assert found.expires_at < until
