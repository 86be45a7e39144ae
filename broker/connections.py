"""A person's standing trust with a backend, a repository host or a peer, and what is done with it.

The exchange itself is the provider's (`sign_in`); here the kind is chosen, secrets are sealed and opened, credentials kept in
memory until shortly before they end, every use written down, and secrets erased once nothing needs them any more.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy import orm

from broker import backends, bootstrap, crypto, db, errors, identity, people, uses
from broker.models import Connection, Launch, Order, State
from broker.service import Service
from providers import base
from providers import errors as clouds
from providers.sentences import say, template

log = structlog.get_logger(__name__)
MARGIN = dt.timedelta(minutes=5)  # a credential that ends sooner is not begun with
ACCOUNTS_MOST = 1000  # credentials in memory; a launch has at most two
SIGNING_IN = template("Signing in")
RARELY = dt.timedelta(hours=6)  # how often accounts are swept in which nothing was bought, as far as we know
FIELD_MOST = 4000  # characters of one field; a token is the longest there is


# --- a person's connections -----------------------------------------------------------------------------------------


def target_of(backend: str) -> str:
    """What a connection with this backend is called in the table."""
    return f"backend:{backend}"


def of(service: Service, person: people.Person) -> list[Connection]:
    """This person's connections that have not been removed, by target."""
    query = sa.select(Connection).where(Connection.person == person.id, Connection.removed_at.is_(None))
    with service.db.reading() as session:
        return list(session.scalars(query.order_by(Connection.target)))


def get(service: Service, person: people.Person, connection_id: str) -> Connection:
    """This person's connection. Raises NotFound, also for somebody else's and for one that was removed."""
    found = row(service, connection_id)
    if found is None or found.person != person.id or found.removed_at is not None or person.anonymous:
        raise errors.NotFound(say("There is no such connection, or it is not yours."))
    return found


def row(service: Service, connection_id: str | None) -> Connection | None:
    """The connection of a row that we wrote ourselves, whoever's it is and removed or not."""
    if connection_id is None:
        return None
    with service.db.reading() as session:
        return session.get(Connection, connection_id)


def find(service: Service, person_id: str, target: str) -> Connection | None:
    """This person's connection with this target."""
    query = sa.select(Connection).where(
        Connection.person == person_id, Connection.target == target, Connection.removed_at.is_(None)
    )
    with service.db.reading() as session:
        return session.scalars(query).one_or_none()


def for_backend(service: Service, person: people.Person, backend: backends.Backend) -> Connection | None:
    """What this person would launch there with; None also where nothing is needed."""
    return find(service, person.id, target_of(backend.name)) if backend.asks_for_account else None


def missing(service: Service, person: people.Person, backend: backends.Backend) -> str | None:
    """Why this person cannot use it although it is open to them: no account connected, or one that does not work."""
    if not backend.asks_for_account:
        return None
    found = for_backend(service, person, backend)
    if found is None:
        return say("Connect your own account there first.")
    if found.works is False:
        return found.trouble or say("Your account there did not let us in. Check its connection.")
    return None


def connect(
    service: Service,
    person: people.Person,
    target: str,
    kinds: Iterable[base.Kind],
    kind_name: str,
    typed: Mapping[str, str],
) -> Connection:
    """Write down what this person told of their account, in place of what they told before. Asks nobody.

    A secret that is left empty stays what it was, where the kind is the same. Raises BadRequest, with the field.
    """
    if person.anonymous:
        raise errors.NotSignedIn
    kind = next((kind for kind in kinds if kind.name == kind_name), None)
    if kind is None:
        raise errors.BadRequest(say("There is no such way to connect. Choose one of those on the page."))
    before = find(service, person.id, target)
    keeps = before if before and before.kind == kind.name else None
    plain, secret = read_fields(kind, typed, has_secret=keeps is not None and keeps.secret is not None)
    now, connection_id = service.now(), crypto.new_id(12)
    if not secret and keeps and keeps.secret:
        secret = opened(service, keeps)
    fresh = Connection(
        id=connection_id,
        person=person.id,
        target=target,
        kind=kind.name,
        subject=before.subject if before else identity.subject(service, person.id, target),
        settings=plain,
        secret=service.sealer.seal(secret, _about(connection_id)) if secret else None,
        created_at=now,
    )
    with service.db.transaction() as session:
        db.one_at_a_time(session, f"connections {person.id}")
        earlier = Connection.person == person.id, Connection.target == target, Connection.removed_at.is_(None)
        session.execute(sa.update(Connection).where(*earlier).values(removed_at=now))
        session.add(fresh)
    log.info("connected", person=person.id, target=target, kind=kind.name, connection=fresh.id)
    erase_unneeded(service)
    return fresh


def read_fields(kind: base.Kind, typed: Mapping[str, str], *, has_secret: bool = False) -> tuple[dict[str, str], str]:
    """The plain fields of this kind and its secret, as typed, each checked. Raises BadField."""
    plain: dict[str, str] = {}
    secret = ""
    for field in kind.fields:
        value = typed.get(field.name, "").strip() or field.default or ""
        needed = field.required and not (field.secret and has_secret)
        title = field.title or field.name
        if not value and needed:
            raise errors.BadField(field.name, say("%(title)s is needed. %(help)s", title=title, help=field.help))
        if value and not _fits(field, value):
            like = f"It looks like {field.example}." if field.example else field.help
            raise errors.BadField(field.name, say("%(title)s does not look right. %(like)s", title=title, like=like))
        if field.secret:
            secret = value
        else:
            plain[field.name] = value
    return plain, secret


def _fits(field: base.Setting, value: str) -> bool:
    if len(value) > FIELD_MOST or not value.isprintable():
        return False
    return (not field.pattern or re.fullmatch(field.pattern, value) is not None) and (
        not field.choices or value in field.choices
    )


def disconnect(service: Service, person: people.Person, connection_id: str) -> Connection:
    """Begin nothing new with it. Its secret is erased at once, or when the last instance that needs it is gone."""
    found = get(service, person, connection_id)
    with service.db.transaction() as session:
        session.execute(sa.update(Connection).where(Connection.id == found.id).values(removed_at=service.now()))
    log.info("disconnected", person=person.id, target=found.target, connection=found.id)
    erase_unneeded(service)
    return found


def erase_unneeded(service: Service) -> int:
    """Erase the secrets of removed connections that no launch needs any more; how many. Runs by itself; may be repeated."""
    bought = sa.select(Order.id).where(Order.connection_id == Connection.id, Order.closed_at.is_(None)).exists()
    runs = sa.and_(Launch.connection_id == Connection.id, Launch.state != State.STOPPED)
    may_fetch = Launch.state.not_in((State.READY, State.STOPPING, State.STOPPED))
    fetches = sa.and_(Launch.repo_connection_id == Connection.id, may_fetch)
    wanted = sa.select(Launch.id).where(sa.or_(runs, fetches)).exists()
    done = Connection.removed_at.is_not(None), Connection.erased_at.is_(None), ~bought, ~wanted
    with service.db.transaction() as session:
        gone = list(session.scalars(sa.select(Connection.id).where(*done)))
        values = {"secret": None, "erased_at": service.now()}
        session.execute(sa.update(Connection).where(Connection.id.in_(gone)).values(values))
    for connection_id in gone:
        _forget(service, connection_id)
    return len(gone)


# --- signing in with one --------------------------------------------------------------------------------------------


def account(
    service: Service,
    backend: backends.Backend,
    connection: Connection | None,
    purpose: base.Purpose,
    launch: Launch | None = None,
    *,
    fresh: bool = False,
    what: str = "",
) -> backends.Account:
    """Signed in for this purpose. Asks the cloud, unless a credential of before is still good for a while.

    `fresh`: ask in any case. `what`: what it is written down as, where that is not the purpose.

    Raises BadCredential, also for a launch with what was disconnected; PermissionMissing, ProviderUnavailable,
    SignInAgain.
    """
    if connection is None:
        if backend.asks_for_account:
            raise clouds.BadCredential(say("No account is connected to run there. Connect one, then try again."))
        return backend.account()
    if purpose is base.Purpose.LAUNCH and connection.removed_at is not None:
        raise clouds.BadCredential(say("This account was disconnected, or connected anew, meanwhile. Launch it again."))
    _require_right(service, connection, backend.kind(connection.kind), purpose)
    key = (connection.id, purpose.value, launch.id if launch else "")
    known = service.accounts.get(key)
    if known and not fresh and _good(service, known.credential):
        return known
    found = _sign_in(service, backend, connection, purpose, launch, what or purpose.value)
    found = replace(found, forget=lambda: service.accounts.pop(key, None))
    _remember(service, key, found)
    return found


def of_launch(service: Service, launch: Launch, purpose: base.Purpose) -> backends.Account:
    """The account that this launch runs on. Raises as `account`."""
    backend = backends.named(service, launch.backend)
    return account(service, backend, row(service, launch.connection_id), purpose, launch)


def of_order(service: Service, order: Order) -> backends.Account:
    """The account that this order is ended with: the reap grant, which needs nobody to be awake. Raises as `account`."""
    backend = backends.named(service, order.backend)
    return account(service, backend, row(service, order.connection_id), base.Purpose.REAP)


def reaching(service: Service, backend: backends.Backend, connection: Connection | None, what: str) -> backends.Account:
    """The account as the reap grant reaches it, whose person need not be there. Raises as `account`.

    Each time is written down as `what`, but for sweeps with a credential that is still good: these come every minute.
    """
    kept = service.accounts.get((connection.id, base.Purpose.REAP.value, "")) if connection else None
    found = account(service, backend, connection, base.Purpose.REAP, what=what)
    if connection and found is kept and what != "sweep":
        used(service, connection, what)
    return found


def to_sweep(service: Service, backend: backends.Backend, *, rarely: bool = False) -> list[Connection]:
    """Every connection behind which this broker may have something of this backend's. Asks nobody.

    `rarely`: where the table knows of no purchase only every RARELY; it may have been restored from before one.
    """
    other = orm.aliased(Connection)
    bought = (
        sa.select(Order.id)
        .join(other, other.id == Order.connection_id)
        .where(other.person == Connection.person, other.target == Connection.target)
    )  # an order is written before anything is bought
    living = Connection.target == target_of(backend.name), Connection.erased_at.is_(None)
    with service.db.reading() as session:
        found = [(row, used) for row, used in session.execute(sa.select(Connection, bought.exists()).where(*living))]
    return [connection for connection, used in found if used or not rarely or _is_its_turn(service, connection)]


def _is_its_turn(service: Service, connection: Connection) -> bool:
    """Whether this account, in which nothing can be that the table knows of, is looked into again."""
    return service.now() - service.looked_into.get(connection.id, connection.created_at) >= RARELY


def looked_into(service: Service, connection: Connection | None) -> None:
    """It answered, and what it has is known."""
    if connection:
        service.looked_into[connection.id] = service.now()


def check(service: Service, person: people.Person, connection_id: str) -> Connection:
    """Sign in for both purposes and try what each needs; what was found is kept in the row that comes back.

    A refusal of the cloud's is a finding, not an error. Raises NotFound, SignInAgain, ProviderUnavailable.
    """
    found = get(service, person, connection_id)
    backend = backends.named(service, found.target.partition(":")[2])
    findings: list[base.Permission] = []
    credentials: list[base.Credential] = []
    for purpose in base.Purpose:
        tried, credential = _try(service, backend, found, purpose)
        findings += tried
        credentials += [credential] if credential else []
    ends = [each.reaches for each in credentials if each.reaches]
    rows = told(findings)
    note(
        service,
        found,
        findings=rows,
        works=not _trouble(rows),
        trouble=_trouble(rows),
        who=credentials[0].who if credentials else "",
        ends_at=min(ends) if ends else None,
        checked_at=service.now(),
    )
    return get(service, person, connection_id)


def _try(
    service: Service, backend: backends.Backend, connection: Connection, purpose: base.Purpose
) -> tuple[list[base.Permission], base.Credential | None]:
    """Each purpose by itself: an account may let us launch and not clean up, or the other way round."""
    try:
        credential = account(service, backend, connection, purpose, fresh=True, what="check").credential
    except (clouds.BadCredential, clouds.PermissionMissing) as refusal:
        return [_signing_in(purpose, str(refusal))], None
    try:
        tried = backend.provider.check(_plain(service, connection, purpose, None), credential)
    except (clouds.BadCredential, clouds.PermissionMissing) as refusal:
        why = say("to see what it may do there")
        tried = [base.Permission(name=template("Checking"), purpose=purpose, why=why, works=False, fix=str(refusal))]
    return [_signing_in(purpose), *tried], credential


def opened(service: Service, connection: Connection) -> str:
    """Its secret. The caller writes down what for (`used`). Raises BadCredential where it has none, Unsealable."""
    if connection.secret is None:
        raise clouds.BadCredential(say("Its secret has been erased. Connect the account again."))
    return service.sealer.open(connection.secret, _about(connection.id))


def used(
    service: Service, connection: Connection, what: str, *, launch_id: str | None = None, outcome: str = ""
) -> None:
    """Write this use down, for the person to see."""
    uses.write(service, connection.person, what, connection_id=connection.id, launch_id=launch_id, outcome=outcome)


def note(service: Service, connection: Connection, **values: Any) -> None:
    """Keep this in its row, whatever else has become of it meanwhile."""
    with service.db.transaction() as session:
        session.execute(sa.update(Connection).where(Connection.id == connection.id).values(**values))


def told(findings: Iterable[base.Permission]) -> list[dict[str, Any]]:
    """What was found, as its row keeps it."""
    return [{**asdict(each), "purpose": each.purpose.value} for each in findings]


# --- within ---------------------------------------------------------------------------------------------------------


def _sign_in(
    service: Service,
    backend: backends.Backend,
    connection: Connection,
    purpose: base.Purpose,
    launch: Launch | None,
    what: str,
) -> backends.Account:
    launch_id = launch.id if launch else None
    try:
        plain = _plain(service, connection, purpose, launch)
        credential = backend.provider.sign_in(plain, _token(service, backend, connection, plain, launch))
    except clouds.ProviderError as refusal:
        used(service, connection, what, launch_id=launch_id, outcome=str(refusal))
        if isinstance(refusal, clouds.BadCredential):
            _learn(service, connection, purpose, str(refusal))
        raise
    used(service, connection, what, launch_id=launch_id)
    if connection.works is False:
        _learn(service, connection, purpose)
    return backends.Account(backend=backend, credential=credential)


def _learn(service: Service, connection: Connection, purpose: base.Purpose, refusal: str = "") -> None:
    """A sign-in in passing says as much as a check does, of itself: what was refused closes the place, what is let in
    again opens it, unless something else is missing."""
    with service.db.transaction() as session:
        kept = session.get(Connection, connection.id)
        if kept is None:
            return
        fresh = told([_signing_in(purpose, refusal)])
        others = [each for each in kept.findings if (each["name"], each["purpose"]) != (SIGNING_IN, purpose.value)]
        kept.findings = [*fresh, *others]
        kept.trouble = _trouble(kept.findings)
        kept.works = False if kept.trouble else True if kept.checked_at else None


def _signing_in(purpose: base.Purpose, refusal: str = "") -> base.Permission:
    why = {
        base.Purpose.LAUNCH: say("to start and see what you launch, while you are signed in here"),
        base.Purpose.REAP: say("to end what you launched, also while you are away"),
    }[purpose]
    return base.Permission(name=SIGNING_IN, purpose=purpose, why=why, works=not refusal, fix=refusal)


def _trouble(findings: Iterable[Mapping[str, Any]]) -> str:
    """What is wrong with it, in a sentence; empty where nothing is."""
    lacking = [each for each in findings if each["works"] is False]
    if refused := next((each["fix"] for each in lacking if each["name"] == SIGNING_IN), ""):
        return str(refused)
    names = ", ".join(dict.fromkeys(each["name"] for each in lacking))
    return say("Something is missing in the account: %(names)s.", names=names) if lacking else ""


def _plain(service: Service, connection: Connection, purpose: base.Purpose, launch: Launch | None) -> base.Connection:
    """As the provider takes it, with its secret opened."""
    return base.Connection(
        kind=connection.kind,
        settings=dict(connection.settings),
        secret=opened(service, connection) if connection.secret is not None else None,
        purpose=purpose,
        tag=bootstrap.launch_tag(service, launch) if launch else None,
        subject=connection.subject,
        broker=service.keys.broker_id,
    )


def _token(
    service: Service,
    backend: backends.Backend,
    connection: Connection,
    plain: base.Connection,
    launch: Launch | None,
) -> str | None:
    about = {"backend": backend.name}
    if launch:
        about |= {"launch": launch.id, "repo": launch.spec}
    assertion = backend.provider.assertion(plain, about)
    if assertion is None:
        return None
    return identity.token(service, identity.form(connection.subject, plain.purpose), assertion)


def _require_right(service: Service, connection: Connection, kind: base.Kind, purpose: base.Purpose) -> None:
    """Asked before what is kept in memory as well: nobody's cloud is bought from for somebody who has not been here for long,
    and what this computer is signed in with serves nobody but the person at it, whatever it is for."""
    person = people.known(service, connection.person)
    if kind.tier is base.Tier.AMBIENT and not person.local:
        raise errors.NotAllowed(say("Only the person at this computer may use what it is signed in with."))
    if purpose is base.Purpose.LAUNCH and not people.recent(service, person):
        raise errors.SignInAgain


def _remember(service: Service, key: tuple[str, ...], found: backends.Account) -> None:
    """For the next use, as long as it is good; what is not any more goes."""
    kept = list(service.accounts.items())
    stale = [each for each, old in kept if not _good(service, old.credential)]
    for each in [*stale, *(each for each, _old in kept[: max(0, len(kept) - ACCOUNTS_MOST)])]:
        service.accounts.pop(each, None)
    service.accounts[key] = found


def _good(service: Service, credential: base.Credential) -> bool:
    return credential.expires_at is None or credential.expires_at - service.now() > MARGIN


def _forget(service: Service, connection_id: str) -> None:
    """No credential of it stays in memory here."""
    for key in [key for key in list(service.accounts) if key[0] == connection_id]:
        service.accounts.pop(key, None)


def _about(connection_id: str) -> str:
    return f"connections/{connection_id}"
