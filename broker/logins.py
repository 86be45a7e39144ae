"""People and the accounts they sign in with. A person is known by issuer and subject, never by an e-mail address, which
others may come to have; a second account becomes theirs only once they have signed in with both."""

from __future__ import annotations

import sqlalchemy as sa
import structlog
from sqlalchemy import orm

from broker import crypto, db, errors, openid, people
from broker.models import (
    ApiToken,
    Connection,
    Consent,
    DeviceLogin,
    Launch,
    Login,
    Profile,
    SignIn,
    State,
    Use,
)
from broker.openid import claims
from broker.service import Service
from providers.sentences import say

log = structlog.get_logger(__name__)


def signed_in(service: Service, vouched: openid.Vouched) -> str:
    """The person whose account this is, with what their provider says of them today. The first time makes a person."""
    with service.db.transaction() as session:
        db.one_at_a_time(session, "people")
        login = session.get(Login, (vouched.issuer, vouched.subject))
        if login is None:
            login = _added(service, session, vouched, _new_person(service, session))
        _told(service, session, login, vouched)
        return login.person


def link(service: Service, person: people.Person, vouched: openid.Vouched) -> bool:
    """Add this login to the person, who has just signed in with both. True where somebody else here became part of them.

    Raises NotAllowed for the one local person, who has no logins.
    """
    if person.local or person.anonymous:
        raise errors.NotAllowed(say("Sign in with one of your accounts first, then add another one."))
    with service.db.transaction() as session:
        db.one_at_a_time(session, "people")
        login = session.get(Login, (vouched.issuer, vouched.subject))
        other = login.person if login else person.id
        if login is None:
            login = _added(service, session, vouched, person.id)
        if other != person.id:
            _merge(service, session, person.id, other)
            session.refresh(login)
        _told(service, session, login, vouched)
    log.info("login_linked", person=person.id, issuer=vouched.issuer, merged=other != person.id)
    return other != person.id


def unlink(service: Service, person: people.Person, issuer: str, subject: str) -> None:
    """Take this login away and sign out what was signed in with it. Raises NotFound, BadRequest for the last one."""
    with service.db.transaction() as session:
        db.one_at_a_time(session, "people")
        login = session.get(Login, (issuer, subject))
        if login is None or login.person != person.id:
            raise errors.NotFound(say("That login is not among yours. They are listed on the page of your account."))
        count = session.scalar(sa.select(sa.func.count()).select_from(Login).where(Login.person == person.id)) or 0
        if count < 2:
            raise errors.BadRequest(say("This is the only account you can sign in with. Add another one first."))
        session.execute(sa.delete(SignIn).where(SignIn.issuer == issuer, SignIn.subject == subject))
        session.delete(login)
    log.info("login_unlinked", person=person.id, issuer=issuer)


def of(service: Service, person: people.Person) -> list[Login]:
    """The accounts this person signs in with, the oldest first."""
    query = sa.select(Login).where(Login.person == person.id).order_by(Login.created_at)
    with service.db.reading() as session:
        return list(session.scalars(query))


def renewed(service: Service, issuer: str, subject: str, told: dict[str, object]) -> None:
    """Keep what the provider says of the person now."""
    identity = openid.identity_of(service, issuer)
    with service.db.transaction() as session:
        login = session.get(Login, (issuer, subject))
        if login is not None and identity is not None:
            login.claims = claims.words(identity, told)


# --- within ---------------------------------------------------------------------------------------------------------


def _new_person(service: Service, session: orm.Session) -> str:
    fresh = Profile(id=crypto.new_id(16), name="", email="", created_at=service.now(), signed_in_at=None)
    session.add(fresh)
    session.flush()
    return fresh.id


def _added(service: Service, session: orm.Session, vouched: openid.Vouched, person_id: str) -> Login:
    now = service.now()
    fresh = Login(
        issuer=vouched.issuer,
        subject=vouched.subject,
        person=person_id,
        name="",
        claims={},
        created_at=now,
        signed_in_at=now,
    )
    session.add(fresh)
    session.flush()
    return fresh


def _told(service: Service, session: orm.Session, login: Login, vouched: openid.Vouched) -> None:
    identity = openid.identity_of(service, vouched.issuer)
    login.claims = claims.words(identity, vouched.claims) if identity else {}
    before, login.name = login.name, claims.name(vouched.claims) or login.name
    login.signed_in_at = service.now()
    profile = session.get(Profile, login.person)
    assert profile is not None  # noqa: S101 -- for the type checker: the column refers to it
    email = vouched.claims.get("email")
    if profile.name in ("", before):  # a second account renames nobody who has a name already
        profile.name = login.name
        profile.email = email[:320] if isinstance(email, str) else profile.email
    profile.signed_in_at = max(filter(None, (profile.signed_in_at, vouched.authenticated_at)))


def _merge(service: Service, session: orm.Session, person_id: str, other: str) -> None:
    """All that is the other's becomes this person's. What both have stays as this person has it."""
    _rename_launches(session, person_id, other)
    _put_away_connections(service, session, person_id, other)
    _drop_consents(session, person_id, other)
    for row in (Launch, Connection, Consent, ApiToken, DeviceLogin, Use, SignIn, Login):
        session.execute(sa.update(row).where(row.person == other).values(person=person_id))
    session.flush()
    session.expire_all()
    profile, gone = session.get(Profile, person_id), session.get(Profile, other)
    if profile is not None and gone is not None:
        profile.name, profile.email = profile.name or gone.name, profile.email or gone.email
        session.delete(gone)
        session.flush()


def _rename_launches(session: orm.Session, person_id: str, other: str) -> None:
    """A name runs once for a person: of two, the one that comes gets a new end."""
    taken = sa.select(Launch.name).where(Launch.person == person_id, Launch.state != State.STOPPED)
    same = Launch.person == other, Launch.state != State.STOPPED, Launch.name.in_(taken)
    for launch in session.scalars(sa.select(Launch).where(*same)):
        launch.name = f"{launch.name[:56]}-{crypto.new_id(6)}"
    session.flush()


def _put_away_connections(service: Service, session: orm.Session, person_id: str, other: str) -> None:
    """One account a target: what runs on the one that comes is still ended with it, and nothing new is begun."""
    has = sa.select(Connection.target).where(Connection.person == person_id, Connection.removed_at.is_(None))
    same = Connection.person == other, Connection.removed_at.is_(None), Connection.target.in_(has)
    session.execute(
        sa.update(Connection).where(*same).values(removed_at=service.now()).execution_options(synchronize_session=False)
    )


def _drop_consents(session: orm.Session, person_id: str, other: str) -> None:
    mine = orm.aliased(Consent)
    both = sa.select(mine.person).where(
        mine.person == person_id, mine.repo_url == Consent.repo_url, mine.commit == Consent.commit
    )
    session.execute(
        sa.delete(Consent).where(Consent.person == other, both.exists()).execution_options(synchronize_session=False)
    )
